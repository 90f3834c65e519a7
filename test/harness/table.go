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
	Result string // ok, FAILED, skipped, not run; filled in at the test's end
	Note   string // what was measured

	number int
}

var table struct {
	sync.Mutex
	rows []*Row
}

// NewRow adds a case to the table. Rows stand in the order of their calls.
func NewRow(group, name, role string) *Row {
	table.Lock()
	defer table.Unlock()
	r := &Row{Group: group, Case: name, Role: role, Result: "not run", number: len(table.rows)}
	table.rows = append(table.rows, r)
	return r
}

// Of makes the result of a test the row's.
func (r *Row) Of(t testing.TB) *Row {
	t.Helper()
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
		if r.Result == "not run" {
			continue // left out by -test.run
		}
		if r.Group != group {
			group = r.Group
			fmt.Fprintf(tw, "\n%s\n", group)
		}
		fmt.Fprintf(tw, "  %s\t%s\t%s\t%s\n", r.Case, r.Role, r.Result, r.Note)
	}
	tw.Flush()
}
