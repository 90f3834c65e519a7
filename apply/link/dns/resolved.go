package dns

import (
	"context"
	"errors"
	"strings"

	"github.com/godbus/dbus/v5"
)

// The interface of systemd-resolved (org.freedesktop.resolve1(5)).
const (
	resolvedName = "org.freedesktop.resolve1"
	resolvedPath = dbus.ObjectPath("/org/freedesktop/resolve1")
	manager      = resolvedName + ".Manager."
)

// A linkAddress is a server, as SetLinkDNS takes it.
type linkAddress struct {
	Family  int32
	Address []byte
}

// A linkDomain is a domain, as SetLinkDomains takes it.
type linkDomain struct {
	Domain  string
	Routing bool
}

// The address families of socket(2).
const (
	familyIPv4 = 2
	familyIPv6 = 10
)

// systemBus connects to the system's bus for one use.
func systemBus(ctx context.Context) (*dbus.Conn, error) {
	return dbus.ConnectSystemBus(dbus.WithContext(ctx))
}

// resolvedRuns reports whether it does. One that could be started is not what this
// host resolves names with.
func resolvedRuns(ctx context.Context) (runs bool, err error) {
	bus, err := systemBus(ctx)
	if err != nil {
		return false, err
	}
	defer bus.Close()
	err = bus.BusObject().CallWithContext(ctx, "org.freedesktop.DBus.NameHasOwner", 0, resolvedName).Store(&runs)
	return runs, err
}

func setResolved(ctx context.Context, device string, index int, c Config, change func(string)) error {
	bus, err := systemBus(ctx)
	if err != nil {
		return err
	}
	defer bus.Close()
	var servers []linkAddress
	for _, s := range c.Servers {
		family := int32(familyIPv4)
		if s.Is6() {
			family = familyIPv6
		}
		servers = append(servers, linkAddress{family, s.AsSlice()})
	}
	var domains []linkDomain
	for _, d := range c.domains() {
		domains = append(domains, linkDomain{strings.TrimPrefix(d, "~"), routing(d)})
	}
	commands := c.resolvedCommands(device)
	for i, call := range []struct {
		method string
		arg    any
	}{{"SetLinkDNS", servers}, {"SetLinkDomains", domains}, {"SetLinkDefaultRoute", !c.split()}} {
		err := resolved(ctx, bus, call.method, int32(index), call.arg)
		if call.method == "SetLinkDefaultRoute" && hasName(err, "org.freedesktop.DBus.Error.UnknownMethod") {
			return nil // systemd before 240 goes by the domains
		}
		if err != nil {
			return err
		}
		change(commands[i])
	}
	return nil
}

func revertResolved(ctx context.Context, device string, index int, change func(string)) error {
	bus, err := systemBus(ctx)
	if err != nil {
		return nil // with the bus the manager has gone
	}
	defer bus.Close()
	err = resolved(ctx, bus, "RevertLink", int32(index))
	switch {
	case hasName(err, resolvedName+".NoSuchLink", "org.freedesktop.DBus.Error.ServiceUnknown", "org.freedesktop.DBus.Error.NameHasNoOwner"):
		return nil
	case err != nil:
		return err
	}
	change("resolvectl revert " + device)
	return nil
}

// resolved calls a method of it, and does not have it started.
func resolved(ctx context.Context, bus *dbus.Conn, method string, args ...any) error {
	return bus.Object(resolvedName, resolvedPath).CallWithContext(ctx, manager+method, dbus.FlagNoAutoStart, args...).Err
}

// hasName reports whether an error is one of these, by D-Bus.
func hasName(err error, names ...string) bool {
	var e dbus.Error
	if !errors.As(err, &e) {
		return false
	}
	for _, name := range names {
		if e.Name == name {
			return true
		}
	}
	return false
}
