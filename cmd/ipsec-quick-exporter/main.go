// Command ipsec-quick-exporter serves what the tunnels of this host have to tell
// to Prometheus. It is a program of its own: what it takes to serve HTTP would be
// in the memory of each tunnel's loop otherwise; it sees the tunnels that are down
// too, and 200 of them need one port.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"ipsec-quick/watch"
)

const (
	// usualAddress has the port of the exporter whose names of metrics we use.
	usualAddress = "127.0.0.1:9903"
	// scrapeTimeout is how long the loops may take to answer, all together:
	// Prometheus has given up by then.
	scrapeTimeout = 10 * time.Second
	// clientTimeout is how long a client may take to say what it wants, and to
	// read the answer.
	clientTimeout = 10 * time.Second
	// scrapes is how many are served at once.
	scrapes = 4
	// maxHeader bounds what a client says, in octets.
	maxHeader = 16 << 10
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// run is main with its surroundings as arguments; it returns the exit code.
func run(args []string, out, errOut io.Writer) int {
	flags := flagSet(errOut)
	listen := flags.Lookup("listen").Value
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err == nil && flags.NArg() > 0:
		fmt.Fprintf(errOut, "ipsec-quick-exporter: it takes no argument such as %q\n", flags.Arg(0))
		fallthrough
	case err != nil:
		return 64 // EX_USAGE
	}
	if flags.Lookup("version").Value.String() == "true" {
		fmt.Fprintln(out, "ipsec-quick-exporter version", watch.Version())
		return 0
	}
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer cancel()
	if err := serve(ctx, listen.String(), thisHost(), errOut); err != nil {
		fmt.Fprintf(errOut, "ipsec-quick-exporter: %v\n", err)
		return 1
	}
	return 0
}

func flagSet(errOut io.Writer) *flag.FlagSet {
	flags := flag.NewFlagSet("ipsec-quick-exporter", flag.ContinueOnError)
	flags.SetOutput(errOut)
	flags.String("listen", usualAddress, "host:port, or unix:/path of a socket")
	flags.Bool("version", false, "print the version")
	return flags
}

// serve answers until the context ends.
func serve(ctx context.Context, address string, from host, errOut io.Writer) error {
	listener, err := listen(address)
	if err != nil {
		return err
	}
	registry := prometheus.NewRegistry()
	if err := registry.Register(from); err != nil {
		return errors.Join(err, listener.Close())
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		MaxRequestsInFlight: scrapes, Timeout: scrapeTimeout, ErrorLog: errorLog{errOut},
	}))
	server := &http.Server{
		Handler: mux, ReadTimeout: clientTimeout, WriteTimeout: scrapeTimeout + clientTimeout,
		IdleTimeout: 2 * time.Minute, MaxHeaderBytes: maxHeader,
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }() // which removes a socket's file when it ends
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	late, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := server.Shutdown(late); err != nil {
		return server.Close()
	}
	return nil
}

// listen opens a port, or a socket that only its owner can use.
func listen(address string) (net.Listener, error) {
	path, isPath := strings.CutPrefix(address, "unix:")
	if !isPath {
		return net.Listen("tcp", address)
	}
	if err := removeStale(path); err != nil {
		return nil, err
	}
	before := syscall.Umask(0o177)
	defer syscall.Umask(before)
	return net.Listen("unix", path)
}

// removeStale removes the socket of one that was killed.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if err != nil || info.Mode().Type() != os.ModeSocket {
		return nil // whatever else is there makes listening fail
	}
	conn, err := net.Dial("unix", path)
	if err == nil {
		return errors.Join(fmt.Errorf("another process listens at %s", path), conn.Close())
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return err
	}
	return os.Remove(path)
}

// errorLog is where a scrape that fails is told.
type errorLog struct{ io.Writer }

// Println prints a line.
func (l errorLog) Println(v ...any) { fmt.Fprintln(l.Writer, v...) }
