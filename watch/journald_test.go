package watch

import (
	"errors"
	"log/slog"
	"maps"
	"strings"
	"testing"

	"github.com/coreos/go-systemd/v22/journal"

	"ipsec-quick/ike"
	"ipsec-quick/ike/suite"
	"ipsec-quick/ike/wire"
)

// entry is one of the journal.
type entry struct {
	message  string
	priority journal.Priority
	fields   map[string]string
}

// recordEntries is a logger and what it has sent.
func recordEntries(level slog.Level) (*slog.Logger, *[]entry) {
	var sent []entry
	j := newJournald(level)
	j.send = func(message string, p journal.Priority, fields map[string]string) error {
		delete(fields, "SYSLOG_IDENTIFIER")
		sent = append(sent, entry{message, p, fields})
		return nil
	}
	return slog.New(j).With("tunnel", "office"), &sent
}

func TestJournald(t *testing.T) {
	log, sent := recordEntries(slog.LevelInfo)
	o := NewLogObserver(log)
	o.Report(ike.Report{Peer: "branch", Text: "request from 192.0.2.1:500 [SA]", Exchange: wire.CreateChildSA, MessageID: 3, SPIi: 1, SPIr: 2})
	o.Report(ike.Report{Peer: "branch", Text: "the rekey failed", Err: errors.New("no\nanswer")})
	o.Established("branch")
	o.Change("ip xfrm state add") // for those who look closely
	log.Error("cannot go on", "pid", 812)
	want := []entry{
		{"branch: CREATE_CHILD_SA request from 192.0.2.1:500 [SA]", journal.PriInfo, map[string]string{
			"TUNNEL": "office", "PEER": "branch", "EXCHANGE": "CREATE_CHILD_SA", "MID": "3",
			"SPI_I": "0000000000000001", "SPI_R": "0000000000000002"}},
		{"branch: the rekey failed: no\nanswer", journal.PriWarning, map[string]string{"TUNNEL": "office", "PEER": "branch", "ERR": "no\nanswer"}},
		{"branch: established", journal.PriInfo, map[string]string{"TUNNEL": "office", "PEER": "branch"}},
		{"cannot go on pid=812", journal.PriErr, map[string]string{"TUNNEL": "office", "PID": "812"}},
	}
	if len(*sent) != len(want) {
		t.Fatalf("%+v", *sent)
	}
	for i, got := range *sent {
		if got.message != want[i].message || got.priority != want[i].priority || !maps.Equal(got.fields, want[i].fields) {
			t.Errorf("%+v, want %+v", got, want[i])
		}
	}
}

// TestJournaldStrangers: the limits for what strangers cause stay.
func TestJournaldStrangers(t *testing.T) {
	log, sent := recordEntries(slog.LevelInfo)
	o := NewLogObserver(log)
	for range 10 * strangerBurst {
		o.Report(ike.Report{Text: "request", Stranger: true})
	}
	if n := len(*sent); n < strangerBurst || n > 2*strangerBurst {
		t.Errorf("%d entries", n)
	}
}

// TestJournaldSecrets: neither in the text nor in a field.
func TestJournaldSecrets(t *testing.T) {
	log, sent := recordEntries(slog.LevelDebug)
	key := suite.Secret(testKey)
	log.Debug("action", "key", key, "detail", struct{ Key suite.Secret }{key}, slog.Group("more", "key", key))
	for _, e := range *sent {
		for _, s := range spellings(testKey) {
			if strings.Contains(e.message, s) {
				t.Errorf("%s", e.message)
			}
			for _, v := range e.fields {
				if strings.Contains(v, s) {
					t.Errorf("%+v", e.fields)
				}
			}
		}
	}
	if len(*sent) != 1 || (*sent)[0].priority != journal.PriDebug {
		t.Errorf("%+v", *sent)
	}
}

func TestFieldName(t *testing.T) {
	for key, want := range map[string]string{"peer": "PEER", "spi_i": "SPI_I", "_pid": "PID", "a.b c": "A_B_C", "9x": "X"} {
		if got := fieldName(key); got != want {
			t.Errorf("%q: %q", key, got)
		}
	}
}

// TestStderrIsNoJournal: who writes to a terminal or a file gets text.
func TestStderrIsNoJournal(t *testing.T) {
	for _, v := range []string{"", "1:1", "rubbish"} {
		t.Setenv("JOURNAL_STREAM", v)
		if StderrLog(slog.LevelInfo) != nil {
			t.Errorf("JOURNAL_STREAM=%s", v)
		}
	}
}
