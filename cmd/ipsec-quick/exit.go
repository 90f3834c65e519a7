package main

import (
	"errors"
	"fmt"
	"io/fs"

	"ipsec-quick/apply/xfrm"
	"ipsec-quick/conf"
	"ipsec-quick/conf/foreign"
	"ipsec-quick/ike"
	"ipsec-quick/watch"
)

// Exit codes, after sysexits.h.
const (
	exitOK           = 0
	exitOther        = 1
	exitUsage        = 64 // EX_USAGE
	exitRefused      = 69 // EX_UNAVAILABLE: by the peer, or this kernel lacks something, or another loop is there
	exitNoAnswer     = 75 // EX_TEMPFAIL: in time
	exitNotPermitted = 77 // EX_NOPERM
	exitBadFile      = 78 // EX_CONFIG: the tunnel file
)

// usageError is a command line that cannot be understood.
type usageError struct{ text string }

// Error is the reason.
func (e *usageError) Error() string { return e.text }

func usage(format string, args ...any) error { return &usageError{fmt.Sprintf(format, args...)} }

// reported is an error that the user has been told about.
type reported struct{ code int }

// Error is for those who print it nevertheless.
func (e *reported) Error() string { return fmt.Sprintf("exit status %d", e.code) }

// codeOf is the exit code for an error.
func codeOf(err error) int {
	var (
		said       *reported
		usageErr   *usageError
		files      conf.Errors
		permission *xfrm.NoPermission
		noESP      *xfrm.NoESP
		noAlg      *xfrm.NoAlgorithm
		late       *watch.NoAnswer
		missing    *noFile
		source     *foreign.Error
		running    *watch.Running
	)
	switch {
	case errors.As(err, &said):
		return said.code
	case errors.As(err, &usageErr):
		return exitUsage
	case errors.As(err, &files), errors.As(err, &missing), errors.As(err, &source):
		return exitBadFile
	case errors.As(err, &permission), errors.Is(err, fs.ErrPermission):
		return exitNotPermitted
	case errors.As(err, &late), errors.Is(err, watch.ErrNoAnswer):
		return exitNoAnswer
	case ike.Refused(err), errors.As(err, &noESP), errors.As(err, &noAlg),
		errors.As(err, &running) && !running.Starting:
		return exitRefused
	case ike.TimedOut(err):
		return exitNoAnswer
	}
	return exitOther
}

// describe is the text for an error, with what to do where the error itself
// does not say.
func describe(err error) string {
	var files conf.Errors
	if errors.As(err, &files) {
		return files.Error() // a line each, with the file's name
	}
	text := "ipsec-quick: " + err.Error()
	var usageErr *usageError
	var permission *xfrm.NoPermission
	switch {
	case errors.As(err, &usageErr):
		text += "; see `ipsec-quick --help`"
	case errors.As(err, &permission): // says it
	case errors.Is(err, fs.ErrPermission):
		text += ": run it as root; it needs CAP_NET_ADMIN and " + watch.RunDir
	}
	return text
}
