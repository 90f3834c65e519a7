//go:build lab

package lab_test

import (
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
)

var transcriptFile = flag.String("transcript", "", "keep the transcript of TestHabits in this `file` too")

// A scene is what somebody who types the same habit sees of two programs.
type scene struct {
	habit      string
	ours, them string
}

// scenes are those of TestHabits, in the order in which they were played.
var scenes []scene

// printTranscript writes the scenes, ours first, and keeps them if a flag says so.
func printTranscript(w io.Writer) error {
	if len(scenes) == 0 {
		return nil
	}
	var b strings.Builder
	fmt.Fprint(&b, "\nTranscript: habits of wg-quick's users, with ipsec-quick and with wg-quick\n")
	for i, s := range scenes {
		fmt.Fprintf(&b, "\n%d. %s\n", i+1, s.habit)
		for _, side := range []struct{ name, text string }{{"ipsec-quick", s.ours}, {"wg-quick", s.them}} {
			fmt.Fprintf(&b, "\n    -- %s --\n", side.name)
			for line := range strings.Lines(side.text) {
				fmt.Fprintf(&b, "    %s", line)
			}
		}
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return err
	}
	if *transcriptFile == "" {
		return nil
	}
	return os.WriteFile(*transcriptFile, []byte(strings.TrimLeft(b.String(), "\n")), 0o644)
}

// masks are what is another thing each time, or nobody's business.
var masks = []struct {
	pattern *regexp.Regexp
	with    string
}{
	{regexp.MustCompile(`(process|PID:|pid) \d+`), "$1 PID"},
	{regexp.MustCompile(`\b\d+(\.\d+)?(µs|ms|s)\b`), "TIME"},
	{regexp.MustCompile(`\b[A-Z][a-z]{2} [A-Z][a-z]{2} +\d+ [\d:]+( \d{4})?\b|\b\d{4}-\d\d-\d\d[ T][\d:.]+( ?UTC|Z)?`), "DATE"},
	{regexp.MustCompile(`\b(0x)?[0-9a-f]{16}\b`), "${1}SPI"},
	{regexp.MustCompile(`\b(spi |SPI )?0x[0-9a-f]{8}\b`), "${1}0xSPI"},
	{regexp.MustCompile(`\blimit time-soft \d+`), "limit time-soft TIME"},
	{regexp.MustCompile(`[A-Za-z0-9+/]{43}=`), "<key>"},
	{regexp.MustCompile(`psk = ".*"`), `psk = "<hidden>"`},
	{regexp.MustCompile(`\bfe80::[0-9a-f:]+`), "fe80::LOCAL"},
}

// masked is text as it is each time.
func masked(text string) string {
	for _, m := range masks {
		text = m.pattern.ReplaceAllString(text, m.with)
	}
	return text
}
