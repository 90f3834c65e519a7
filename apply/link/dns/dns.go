// Package dns has this host ask name servers by a device: with systemd-resolved,
// over D-Bus, or else with resolvconf (openresolv's, Debian's, or systemd's).
package dns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Config is what is asked, and for what.
type Config struct {
	Servers []netip.Addr
	// Domains are searched. One with a ~ before it is not, and then the servers
	// are asked for names in Domains only; else for all names. "~." is all names.
	Domains []string
}

// split reports whether the servers are asked for some names only.
func (c Config) split() bool {
	return slices.ContainsFunc(c.Domains, routing) && !slices.Contains(c.Domains, root)
}

// root is the domain of all names.
const root = "~."

func routing(domain string) bool { return strings.HasPrefix(domain, "~") }

// A Manager is what resolves this host's names.
type Manager string

// The managers.
const (
	Resolved   Manager = "systemd-resolved"
	Resolvconf Manager = "resolvconf"
)

// timeout bounds each call of a manager.
const timeout = 5 * time.Second

// Find finds the manager of this host, and reports what it cannot do. It changes
// nothing.
func Find(c Config) (Manager, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	there, err := resolvedRuns(ctx)
	switch {
	case there:
		return Resolved, nil
	case !haveResolvconf():
		missing := errors.New("this host has neither systemd-resolved nor resolvconf for interface.dns: install one of them, or leave dns out and write resolv.conf by a hook")
		if err != nil {
			missing = fmt.Errorf("%w (%w)", missing, err)
		}
		return "", missing
	}
	return Resolvconf, Resolvconf.Check(c)
}

// Check reports what a manager cannot do.
func (m Manager) Check(c Config) error {
	if m == Resolvconf && c.split() {
		return errors.New("resolvconf asks the servers of interface.dns for all names: write its domains without ~, or run systemd-resolved")
	}
	return nil
}

// Set has servers asked by a device, in place of those before. change gets each
// change as the command that would make it.
func (m Manager) Set(device string, index int, c Config, change func(command string)) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	var err error
	switch m {
	case Resolved:
		err = setResolved(ctx, device, index, c, change)
	case Resolvconf:
		err = runShell(ctx, ResolvconfSet(device, c), change)
	default:
		err = errors.ErrUnsupported
	}
	if err != nil {
		return fmt.Errorf("dns by %s: %w", m, err)
	}
	return nil
}

// Revert takes that back. A device or a manager that has gone has taken it along.
func (m Manager) Revert(device string, index int, change func(command string)) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	var err error
	switch m {
	case Resolved:
		err = revertResolved(ctx, device, index, change)
	case Resolvconf:
		if haveResolvconf() { // else what it wrote has gone with it
			err = runShell(ctx, ResolvconfRevert(device), change)
		}
	default:
		err = errors.ErrUnsupported
	}
	if err != nil {
		return fmt.Errorf("dns by %s: %w", m, err)
	}
	return nil
}

// resolvedCommands are the changes that Set makes with Resolved.
func (c Config) resolvedCommands(device string) []string {
	servers := make([]string, len(c.Servers))
	for i, s := range c.Servers {
		servers[i] = s.String()
	}
	route := "yes"
	if c.split() {
		route = "no"
	}
	domains := make([]string, 0, len(c.Domains))
	for _, d := range c.domains() {
		domains = append(domains, "'"+d+"'")
	}
	return []string{
		"resolvectl dns " + device + " " + strings.Join(servers, " "),
		"resolvectl domain " + device + " " + strings.Join(domains, " "),
		"resolvectl default-route " + device + " " + route,
	}
}

// domains has the root too where all names are asked for.
func (c Config) domains() []string {
	if c.split() || slices.Contains(c.Domains, root) {
		return c.Domains
	}
	return append(slices.Clone(c.Domains), root)
}
