package watch

import (
	"log/slog"
	"log/syslog"
	"os"
	"strings"
	"sync"

	"github.com/coreos/go-systemd/v22/journal"
	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"

	"ipsec-quick/ike"
)

// LogVariable of the environment makes the loop log more: "debug".
const LogVariable = "IPSEC_QUICK_LOG"

// maxLog bounds the log file; the one before it is kept too.
const maxLog = 256 << 10

// LogLevel is what the environment asks for.
func LogLevel() slog.Level {
	var level slog.Level
	if level.UnmarshalText([]byte(os.Getenv(LogVariable))) != nil {
		return slog.LevelInfo
	}
	return level
}

// backgroundLog is where a loop in the background logs: systemd's journal, the
// host's syslog or, where there is neither, a file in its directory.
func backgroundLog(d *dir) *slog.Logger {
	var h slog.Handler
	if journal.Enabled() {
		h = newJournald(LogLevel())
	} else if w, err := syslog.New(syslog.LOG_DAEMON|syslog.LOG_INFO, "ipsec-quick"); err == nil {
		h = slog.NewTextHandler(&syslogWriter{w}, &slog.HandlerOptions{Level: LogLevel(), ReplaceAttr: withoutTime})
	} else {
		h = slog.NewTextHandler(&cappedFile{path: d.file(fileLog)}, &slog.HandlerOptions{Level: LogLevel()})
	}
	return slog.New(h).With("tunnel", d.name)
}

// withoutTime: the syslog has its own.
func withoutTime(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && a.Key == slog.TimeKey {
		return slog.Attr{}
	}
	return a
}

// syslogWriter gives each line the severity that slog wrote into it.
type syslogWriter struct{ w *syslog.Writer }

func (s *syslogWriter) Write(b []byte) (int, error) {
	line := strings.TrimRight(string(b), "\n")
	var err error
	switch {
	case strings.HasPrefix(line, "level=ERROR"):
		err = s.w.Err(line)
	case strings.HasPrefix(line, "level=WARN"):
		err = s.w.Warning(line)
	case strings.HasPrefix(line, "level=DEBUG"):
		err = s.w.Debug(line)
	default:
		err = s.w.Info(line)
	}
	return len(b), err
}

// cappedFile is a file that starts anew when it is full.
type cappedFile struct {
	path string

	mu   sync.Mutex
	file *os.File
	size int64
}

// Write appends.
func (c *cappedFile) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.file == nil || c.size+int64(len(b)) > maxLog {
		if err := c.open(); err != nil {
			return 0, err
		}
	}
	n, err := c.file.Write(b)
	c.size += int64(n)
	return n, err
}

func (c *cappedFile) open() error {
	if c.file != nil {
		_ = c.file.Close()
		_ = os.Rename(c.path, c.path+".1") // if not, the old one goes on growing; the next try is at the next line
	}
	f, err := os.OpenFile(c.path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		_ = f.Close()
		return err
	}
	c.file, c.size = f, info.Size()
	return nil
}

// crashOutput is the file that a background process has as its stderr.
func crashOutput(d *dir) (*os.File, error) {
	return os.OpenFile(d.file(fileLog), os.O_WRONLY|os.O_APPEND|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
}

// What strangers may make us log, in lines at once and a second.
const (
	strangerBurst = 20
	strangerLines = 5
)

// logObserver writes one line for each thing that an operator cares about. Those
// that a stranger can cause are limited; what is refused and what is tried by
// themselves, so that the one does not hide the other.
type logObserver struct {
	log            *slog.Logger
	refused, tried *rate.Limiter
	leftOut        int
}

// NewLogObserver is an Observer that logs.
func NewLogObserver(log *slog.Logger) Observer {
	return &logObserver{
		log:     log,
		refused: rate.NewLimiter(strangerLines, strangerBurst),
		tried:   rate.NewLimiter(strangerLines, strangerBurst),
	}
}

// admits decides whether a line is written, and tells of those that were not
// before the next one that is.
func (o *logObserver) admits(r ike.Report) bool {
	limit := o.tried
	if r.Err != nil {
		limit = o.refused
	}
	if r.Stranger && !limit.Allow() {
		o.leftOut++
		return false
	}
	if o.leftOut > 0 {
		o.log.Warn("lines about strangers were left out", "lines", o.leftOut)
		o.leftOut = 0
	}
	return true
}

// Report logs an exchange.
func (o *logObserver) Report(r ike.Report) {
	if !o.admits(r) {
		return
	}
	args := []any{"peer", r.Peer}
	if r.Exchange != 0 {
		args = append(args, "exchange", r.Exchange.String(), "mid", r.MessageID)
	}
	if r.SPIi != 0 {
		args = append(args, "spi_i", r.SPIi.String(), "spi_r", r.SPIr.String())
	}
	if r.Err != nil {
		o.log.Warn(r.Text, append(args, "err", r.Err)...)
		return
	}
	o.log.Info(r.Text, args...)
}

// Change logs a change to this host, for those who look closely.
func (o *logObserver) Change(command string) { o.log.Debug(command) }

// Hook logs that a command begins and what it prints.
func (o *logObserver) Hook(r HookReport) {
	switch {
	case r.Command == "":
		o.log.Info("output of a hook", "hook", r.Hook, "line", r.Line)
	case r.Peer == "":
		o.log.Info("hook", "hook", r.Hook, "command", r.Command)
	default:
		o.log.Info("hook", "hook", r.Hook, "peer", r.Peer, "command", r.Command)
	}
}

// Established logs that a peer is.
func (o *logObserver) Established(peer string) { o.log.Info("established", "peer", peer) }

// Lost logs that it is no more.
func (o *logObserver) Lost(a ike.Lost) {
	args := []any{"peer", a.Peer, "err", a.Err}
	if !a.Retry.IsZero() {
		args = append(args, "retry", a.Retry)
	}
	o.log.Warn("lost", args...)
}
