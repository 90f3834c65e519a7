//go:build linux

package harness

import (
	"encoding/json"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// restartAfter is how long a Service waits before it starts its command again,
// as systemd does with Restart=always (RestartSec=100ms, its default).
const restartAfter = 100 * time.Millisecond

// Service is a command of ipsec-quick that is started again whenever it ends, as
// a service manager does.
type Service struct {
	q    *Quick
	args []string
	out  *lockedBuffer
	done chan struct{}

	mu      sync.Mutex
	cmd     *exec.Cmd // the latest
	starts  int
	started time.Time // the latest time
	stopped bool
	err     error // that it could not be started
}

// Supervise starts a service. Stop ends it; at the test's end it is killed.
func (q *Quick) Supervise(args ...string) *Service {
	q.t.Helper()
	q.up = true
	s := &Service{q: q, args: args, out: &lockedBuffer{}, done: make(chan struct{})}
	go s.run()
	q.t.Cleanup(func() {
		s.mu.Lock()
		s.stopped = true
		s.mu.Unlock()
		for ended := false; !ended; {
			s.Kill()
			select {
			case <-s.done:
				ended = true
			case <-time.After(restartAfter):
			}
		}
		fmt.Fprintf(&q.said, "service %s, started %d times:\n%s\n", strings.Join(args, " "), s.starts, tail(s.out.String(), 200))
	})
	return s
}

func (s *Service) run() {
	defer close(s.done)
	for {
		cmd := exec.Command(s.q.Binary, s.args...)
		cmd.Stdout, cmd.Stderr = s.out, s.out
		cmd.WaitDelay = 3 * time.Second
		s.mu.Lock()
		if s.stopped {
			s.mu.Unlock()
			return
		}
		s.started = time.Now()
		err := s.q.Host.Do(cmd.Start)
		s.cmd, s.err = cmd, err
		s.starts++
		s.mu.Unlock()
		if err != nil {
			return
		}
		err = cmd.Wait()
		fmt.Fprintf(s.out, "%s process %d: %v\n", time.Now().Format(clock), cmd.Process.Pid, err)
		time.Sleep(restartAfter)
	}
}

// Kill ends the command by SIGKILL. It returns false when it does not run at the
// moment.
func (s *Service) Kill() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cmd != nil && s.cmd.Process != nil && s.cmd.Process.Kill() == nil
}

// Starts is how often the command has been started.
func (s *Service) Starts() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.starts
}

// Started is when it was started the latest time.
func (s *Service) Started() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.started
}

// Stop takes the tunnel down, which ends the command for good.
func (s *Service) Stop() {
	s.q.t.Helper()
	s.mu.Lock()
	s.stopped = true
	s.mu.Unlock()
	s.q.Down()
	select {
	case <-s.done:
	case <-time.After(10 * time.Second):
		s.q.t.Errorf("%s: the service is still there after down", s.q.Host.Name)
	}
	if s.err != nil {
		s.q.t.Errorf("%s: the service was not started: %v", s.q.Host.Name, s.err)
	}
}

// ask sends the loop a request without a process of its own, which would take
// longer to start than a rekey takes. The error is that of a loop that has died
// over it, or what the loop answers.
func (q *Quick) ask(verb string) <-chan error {
	done := make(chan error, 1)
	go func() {
		var conn net.Conn
		err := q.Host.Do(func() error {
			var err error
			conn, err = net.Dial("unix", filepath.Join("/run/ipsec-quick", q.Name, "control.sock"))
			return err
		})
		if err != nil {
			done <- err
			return
		}
		defer conn.Close()
		var answer struct {
			Error string `json:"error"`
		}
		if err = json.NewEncoder(conn).Encode(map[string]string{"verb": verb}); err == nil {
			err = json.NewDecoder(conn).Decode(&answer)
		}
		if err == nil && answer.Error != "" {
			err = fmt.Errorf("%s: %s", verb, answer.Error)
		}
		done <- err
	}()
	return done
}

// Serves says whether the loop is there and answers.
func (q *Quick) Serves() bool { return <-q.ask("status") == nil }

// BeginRekey asks the loop for new keys. The channel says how it went: an error
// if the loop died over it.
func (q *Quick) BeginRekey() <-chan error { return q.ask("rekey") }
