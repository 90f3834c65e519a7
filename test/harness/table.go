//go:build linux

package harness

import (
	"fmt"
	"io"
	"sort"
	"sync"
	"testing"
	"text/tabwriter"
)

// Row is one case in the table of results.
type Row struct {
	Group  string // the rows of a group stand together
	Case   string
	Role   string // what we were: initiator, responder
	Result string // ok, FAILED, skipped; filled in at the test's end
	Note   string // what was measured

	number int
}

var table struct {
	sync.Mutex
	rows []*Row
}

// AddRow adds a case to the table; its result is the test's. Notes may be added
// as the test runs.
func AddRow(t testing.TB, group, name, role string) *Row {
	t.Helper()
	table.Lock()
	defer table.Unlock()
	r := &Row{Group: group, Case: name, Role: role, Result: "not finished", number: len(table.rows)}
	table.rows = append(table.rows, r)
	t.Cleanup(func() {
		table.Lock()
		defer table.Unlock()
		switch {
		case t.Failed():
			r.Result = "FAILED"
		case t.Skipped():
			r.Result = "skipped"
		default:
			r.Result = "ok"
		}
	})
	return r
}

// Notef sets the row's note.
func (r *Row) Notef(format string, args ...any) {
	table.Lock()
	defer table.Unlock()
	r.Note = fmt.Sprintf(format, args...)
}

// PrintTable writes all rows, by group and in the order in which they began.
func PrintTable(w io.Writer) {
	table.Lock()
	defer table.Unlock()
	if len(table.rows) == 0 {
		return
	}
	sort.SliceStable(table.rows, func(i, j int) bool {
		a, b := table.rows[i], table.rows[j]
		if a.Group != b.Group {
			return a.Group < b.Group
		}
		return a.number < b.number
	})
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	group := ""
	for _, r := range table.rows {
		if r.Group != group {
			group = r.Group
			fmt.Fprintf(tw, "\n%s\n", group)
		}
		fmt.Fprintf(tw, "  %s\t%s\t%s\t%s\n", r.Case, r.Role, r.Result, r.Note)
	}
	tw.Flush()
}
