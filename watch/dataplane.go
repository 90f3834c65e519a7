package watch

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"

	"ipsec-quick/apply"
	"ipsec-quick/apply/userspace"
	"ipsec-quick/apply/userspace/steer"
	"ipsec-quick/apply/xfrm"
	"ipsec-quick/conf"
)

// DataplaneOptions are what a data plane is opened with.
type DataplaneOptions struct {
	Tunnel *conf.Tunnel
	Kind   string // as Tunnel.Dataplane; of a tunnel that is up, the one that it has
	Dir    string // the tunnel's run directory
	Device string // the name of its interface
	Routed bool   // routes lead to that; else it is there in user space alone
	Log    *slog.Logger

	// Inherited are descriptors that a program before this one in the same process
	// had for this data plane, which takes them.
	Inherited []int

	Change func(command string) // gets each change to this host; may be nil
	Say    func(remark string)  // gets which data plane it is and why; may be nil

	// What comes to the data plane's own sockets: IKE messages, and ESP packets of
	// no SA of its own, which Stray reports whether it could give to anyone. Data
	// is valid during the call, which waits for nobody.
	IKE   func(local, remote netip.AddrPort, data []byte)
	Stray func(local, remote netip.AddrPort, data []byte) bool
}

// A DataplaneOpener opens the data plane of a tunnel.
type DataplaneOpener func(DataplaneOptions) (apply.Dataplane, error)

// OpenDataplane opens the kernel's data plane, or ESP in this process: what Kind
// says, and with conf.DataplaneAuto the latter where the kernel cannot do it. The
// errors say what is missing.
func OpenDataplane(o DataplaneOptions) (apply.Dataplane, error) {
	for _, f := range []*func(string){&o.Change, &o.Say} {
		if *f == nil {
			*f = func(string) {}
		}
	}
	lacks := errors.New("the tunnel file asks for it")
	if o.Kind != conf.DataplaneUserspace {
		kernel, err := xfrm.New(needs(o.Tunnel)...)
		switch {
		case err == nil:
			o.Say("# data plane: the kernel")
			return kernel, nil
		case o.Kind != conf.DataplaneAuto || !lacking(err):
			return nil, err
		}
		lacks = err
	}
	plane, err := openUserspace(o)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("ESP in user space (%w): %w: `modprobe tun`; a container has to be given the device", lacks, err)
	case err != nil:
		return nil, fmt.Errorf("ESP in user space (%w): %w", lacks, err)
	}
	o.Say("# data plane: in user space, in this process: " + lacks.Error())
	return plane, nil
}

// lacking reports whether a kernel cannot do what is asked for, whoever asks.
func lacking(err error) bool {
	var esp *xfrm.NoESP
	var algorithm *xfrm.NoAlgorithm
	return errors.As(err, &esp) || errors.As(err, &algorithm)
}

func openUserspace(o DataplaneOptions) (apply.Dataplane, error) {
	plane := userspace.Options{
		Dir: o.Dir, Name: o.Device, Mark: apply.Mark, Log: o.Log, Change: o.Change,
		IKE: o.IKE, Stray: o.Stray, Inherited: o.Inherited,
	}
	if o.Routed {
		plane.Steering = unsteered{}
	} else {
		plane.Steering = steer.Open(steer.Options{
			Device: o.Device, Ports: []uint16{o.Tunnel.Port, o.Tunnel.NATPort}, Log: o.Log, Change: o.Change,
		})
	}
	if o.Tunnel.Interface != nil {
		plane.MTU = o.Tunnel.Interface.MTU
	}
	return userspace.Open(plane)
}

// openDataplane opens the data plane: the one that the tunnel has, if it is up
// already, whatever the tunnel file says by now.
func (p *parts) openDataplane(open DataplaneOpener) error {
	in := &inward{dir: p.dir, change: p.obs.Change}
	p.inward = in
	o := DataplaneOptions{
		Tunnel: p.tunnel, Kind: p.facts.Dataplane, Dir: p.dir.path, Device: p.tunnel.Name, Log: p.log, IKE: in.receive, Stray: in.stray,
		Change: func(command string) { in.change(command) }, Inherited: p.inherited,
	}
	p.inherited = nil
	if p.facts.Interface != "" {
		o.Device, o.Routed = p.facts.Interface, true
	}
	if o.Kind == "" {
		o.Kind, o.Say = p.tunnel.Dataplane, p.obs.Change
	}
	dp, err := open(o)
	if err != nil {
		return err // not a nil data plane in an interface
	}
	p.dp = dp
	return nil
}

// inUserspace reports whether ESP is done in this process.
func inUserspace(dp apply.Dataplane) bool { return dp.Name() == conf.DataplaneUserspace }

// changes prefixes what a journal tells, ip(8)'s commands for the kernel's data
// plane: in user space they only say what is done.
func changes(dp apply.Dataplane, change func(command string)) func(string) {
	if !inUserspace(dp) {
		return change
	}
	return func(command string) { change("# in user space: " + command) }
}
