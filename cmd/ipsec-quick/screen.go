package main

import (
	"io"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Sequences of ECMA-48, and of DEC's terminals that all others follow.
const (
	plain  = "\x1b[0m"
	bold   = "\x1b[1m"
	red    = "\x1b[31m"
	green  = "\x1b[32m"
	yellow = "\x1b[33m"

	// The alternate screen, without cursor and without wrapping of long lines.
	enterScreen = "\x1b[?1049h\x1b[?25l\x1b[?7l"
	leaveScreen = "\x1b[?7h\x1b[?25h\x1b[?1049l"
	home        = "\x1b[H"
	eraseLine   = "\x1b[K" // what is right of the cursor
	eraseBelow  = "\x1b[J"
)

// usualWidth is that of a terminal which does not tell.
const usualWidth = 80

// screen is where something for people is printed.
type screen struct {
	io.Writer
	terminal      bool // it moves its cursor and has an alternate screen
	color         bool
	width, height int // in characters; 0 for the height: no end
}

// screenOf looks what w is. COLUMNS says how wide, NO_COLOR (no-color.org) and
// TERM=dumb that there are no colours.
func screenOf(w io.Writer) screen {
	s := screen{Writer: w, width: usualWidth}
	if f, ok := w.(*os.File); ok {
		if size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ); err == nil {
			s.terminal = os.Getenv("TERM") != "dumb"
			s.color = s.terminal && os.Getenv("NO_COLOR") == ""
			s.height = int(size.Row)
			if size.Col > 0 {
				s.width = int(size.Col)
			}
		}
	}
	if n, err := strconv.Atoi(os.Getenv("COLUMNS")); err == nil && n > 0 {
		s.width = n
	}
	return s
}

// paint is the text in a style, where there are colours.
func (s screen) paint(style, text string) string {
	if !s.color || style == "" {
		return text
	}
	return style + text + plain
}
