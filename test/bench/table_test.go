//go:build lab

package bench_test

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"

	"golang.org/x/sys/unix"
)

const (
	memoryPeak  = "memory, flooded"
	memoryAfter = "memory, a minute later"
)

// rows are the rows of the table. Names are those of the figures.
var rows = []struct {
	name, unit string
	digits     int
}{
	{"TCP, one stream", "Gbit/s", 2},
	{"TCP, four streams", "Gbit/s", 2},
	{"TCP, one stream each way", "Gbit/s", 2},
	{"CPU, one stream", "s/GiB", 2},
	{udpRow(udpSizes[0]), "packets/s", 0},
	{udpRow(udpSizes[1]), "packets/s", 0},
	{udpRow(udpSizes[2]), "packets/s", 0},
	{"round trip, idle, median", "µs", 0},
	{"round trip, idle, p99", "µs", 0},
	{"round trip, loaded, median", "µs", 0},
	{"round trip, loaded, p99", "µs", 0},
	{memoryPeak, "MiB", 0},
	{memoryAfter, "MiB", 0},
}

// results are the figures of all runs, by row and contestant.
type results struct {
	field   []*contestant
	loads   string // before
	figures map[string]map[string][]float64
}

func newResults(field []*contestant) *results {
	return &results{field: field, loads: loadAverage(), figures: map[string]map[string][]float64{}}
}

func (r *results) add(row string, c *contestant, value float64) {
	if r.figures[row] == nil {
		r.figures[row] = map[string][]float64{}
	}
	r.figures[row][c.name] = append(r.figures[row][c.name], value)
}

// median returns the median of a row's figures, with the least and the greatest.
func (r *results) median(row string, c *contestant) (median, least, most float64, ok bool) {
	list := slices.Sorted(slices.Values(r.figures[row][c.name]))
	if len(list) == 0 {
		return 0, 0, 0, false
	}
	return (list[(len(list)-1)/2] + list[len(list)/2]) / 2, list[0], list[len(list)-1], true
}

// print writes the table, and one of the second contestant's figures as ratios
// to those of the others.
func (r *results) print(w io.Writer) {
	fmt.Fprintf(w, "\n%d processors, Linux %s, TCP %s; load average %s before, %s after\n"+
		"%d runs of %v each, in turn; median [least-greatest]\n\n",
		runtime.NumCPU(), release(), congestion(), r.loads, loadAverage(), *runs, *span)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprint(tw, "\t")
	for _, c := range r.field {
		fmt.Fprintf(tw, "\t%s", c.name)
	}
	for _, row := range rows {
		if r.figures[row.name] == nil {
			continue
		}
		fmt.Fprintf(tw, "\n%s\t%s", row.name, row.unit)
		for _, c := range r.field {
			cell := "-"
			if median, least, most, ok := r.median(row.name, c); ok {
				cell = fmt.Sprintf("%.*f", row.digits, median)
				if least != most {
					cell += fmt.Sprintf(" [%.*f-%.*f]", row.digits, least, row.digits, most)
				}
			}
			fmt.Fprintf(tw, "\t%s", cell)
		}
	}
	fmt.Fprintln(tw)
	tw.Flush()
	r.printRatios(w)
}

func (r *results) printRatios(w io.Writer) {
	i := slices.IndexFunc(r.field, func(c *contestant) bool { return c.name == "ipsec-quick" })
	if i < 0 || len(r.field) < 2 {
		return
	}
	ours := r.field[i]
	others := slices.Delete(slices.Clone(r.field), i, i+1)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprint(tw, "\nipsec-quick, in times of")
	for _, c := range others {
		fmt.Fprintf(tw, "\t%s", c.name)
	}
	for _, row := range rows {
		if r.figures[row.name] == nil {
			continue
		}
		fmt.Fprintf(tw, "\n%s", row.name)
		mine, _, _, _ := r.median(row.name, ours)
		for _, c := range others {
			cell := "-"
			if theirs, _, _, ok := r.median(row.name, c); ok && theirs > 0 && mine > 0 {
				cell = fmt.Sprintf("%.2f", mine/theirs)
			}
			fmt.Fprintf(tw, "\t%s", cell)
		}
	}
	fmt.Fprintln(tw)
	tw.Flush()
}

// congestion is TCP's congestion control, on which its rates depend.
func congestion() string {
	text, err := os.ReadFile("/proc/sys/net/ipv4/tcp_congestion_control")
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(text))
}

func release() string {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return err.Error()
	}
	return unix.ByteSliceToString(name.Release[:])
}
