package watch

import (
	"context"
	"log/slog"
	"slices"
	"strings"

	"github.com/coreos/go-systemd/v22/journal"
)

// journald is a slog.Handler that sends entries with fields of their own to
// systemd's journal: PRIORITY, and each attribute by its name in capitals, such
// as TUNNEL and PEER. journalctl(1) filters by them.
type journald struct {
	level slog.Level
	attrs []slog.Attr
	send  func(message string, priority journal.Priority, fields map[string]string) error
}

// StderrLog is a logger for a process in the foreground: of the journal where
// that is what stderr goes to (JOURNAL_STREAM in systemd.exec(5)), else nil.
func StderrLog(level slog.Level) *slog.Logger {
	if is, err := journal.StderrIsJournalStream(); err != nil || !is {
		return nil
	}
	return slog.New(newJournald(level))
}

func newJournald(level slog.Level) *journald { return &journald{level: level, send: journal.Send} }

// Enabled leaves out what nobody asked for.
func (j *journald) Enabled(_ context.Context, level slog.Level) bool { return level >= j.level }

// WithAttrs has the attributes in each entry.
func (j *journald) WithAttrs(attrs []slog.Attr) slog.Handler {
	more := *j
	more.attrs = append(slices.Clip(j.attrs), attrs...)
	return &more
}

// WithGroup does nothing: the fields of an entry have no groups.
func (j *journald) WithGroup(string) slog.Handler { return j }

// The attributes that the text of an entry begins and ends with, and those that
// are in its fields alone.
var (
	around = []string{"peer", "exchange", "err"}
	beside = []string{"tunnel", "spi_i", "spi_r", "mid"}
)

// Handle sends an entry. Its text is what a person sees without the fields:
// "branch: CREATE_CHILD_SA the peer refuses: why lines=3".
func (j *journald) Handle(_ context.Context, r slog.Record) error {
	fields := map[string]string{"SYSLOG_IDENTIFIER": "ipsec-quick"}
	text := map[string]string{}
	var rest strings.Builder
	add := func(a slog.Attr) bool {
		value := a.Value.Resolve().String()
		if value == "" {
			return true
		}
		fields[fieldName(a.Key)] = value
		switch {
		case slices.Contains(around, a.Key):
			text[a.Key] = value
		case !slices.Contains(beside, a.Key):
			rest.WriteString(" " + a.Key + "=" + value)
		}
		return true
	}
	for _, a := range j.attrs {
		add(a)
	}
	r.Attrs(add)
	message := r.Message
	if exchange := text["exchange"]; exchange != "" {
		message = exchange + " " + message
	}
	if peer := text["peer"]; peer != "" {
		message = peer + ": " + message
	}
	if err := text["err"]; err != "" {
		message += ": " + err
	}
	return j.send(message+rest.String(), priority(r.Level), fields)
}

// fieldName is the name of an attribute as the journal takes it.
func fieldName(key string) string {
	name := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		}
		return '_'
	}, key)
	return strings.TrimLeft(name, "_0123456789")
}

func priority(level slog.Level) journal.Priority {
	switch {
	case level >= slog.LevelError:
		return journal.PriErr
	case level >= slog.LevelWarn:
		return journal.PriWarning
	case level >= slog.LevelInfo:
		return journal.PriInfo
	}
	return journal.PriDebug
}
