package watch

import (
	"fmt"
	"net/netip"
	"strings"

	"ipsec-quick/apply"
	"ipsec-quick/apply/link"
	"ipsec-quick/conf"
)

// Plan is what Up would do to this host, as far as that is known beforehand: the
// iproute2 equivalents, and remarks, which begin with "#". Nothing is changed or
// sent.
func Plan(t *conf.Tunnel) ([]string, error) {
	lines := []string{fmt.Sprintf("# UDP ports %d and %d on all addresses, for IKE and for ESP in UDP", t.Port, t.NATPort)}
	ids := chooseReqIDs(t, nil, nil)
	kernel := t.Dataplane != conf.DataplaneUserspace
	var id uint32
	if t.Interface != nil {
		id = chooseInterfaceID(t.Name, nil, nil)
	}
	var peers []*peer
	for i := range t.Peers {
		c := &t.Peers[i]
		p := &peer{conf: c, reqID: ids[c.Name], routed: t.Interface != nil}
		if kernel {
			p.ifID = id
		}
		if c.Endpoint.Addr.IsValid() {
			p.local = c.Address
			if local, err := sourceFor(netip.Addr{}, c.Endpoint.Addr); err == nil && !p.local.IsValid() {
				p.local = local
			}
			if p.local.IsValid() {
				p.remote = c.Endpoint.Addr
			}
		}
		more, err := planPeer(p)
		if err != nil {
			return nil, err
		}
		lines = append(lines, more...)
		peers = append(peers, p)
	}
	lines = planDataplane(t, lines)
	if t.Interface != nil {
		more, err := planInterface(t, id, kernel, peers)
		if err != nil {
			return nil, err
		}
		lines = append(lines, more...)
	}
	if c := dnsConfig(t); c != nil {
		lines = append(lines, fmt.Sprintf("# when a peer is established, by systemd-resolved or resolvconf: name servers %v, domains %v", c.Servers, c.Domains))
	}
	return planHooks(t, lines), nil
}

// planInterface is what comes after the guards.
func planInterface(t *conf.Tunnel, id uint32, kernel bool, peers []*peer) ([]string, error) {
	s, err := interfaceState(t.Interface, peers)
	if err != nil {
		return nil, err
	}
	mtu := "# its MTU is what the path, the cipher and a NAT leave of a packet, once they are known"
	if s.MTU = t.Interface.MTU; s.MTU != 0 {
		mtu = "# its MTU is set"
	} else if kernel {
		s.MTU = apply.LeastMTU6
	}
	lines, err := link.Plan(link.Options{
		Name: t.Interface.Name, ID: id, XFRM: kernel, Ports: []uint16{t.Port, t.NATPort},
	}, s)
	return append([]string{fmt.Sprintf("# before the first message, interface %s: what is routed there is encrypted or dropped", t.Interface.Name), mtu}, lines...), err
}

// planHooks puts the commands of hooks around the rest.
func planHooks(t *conf.Tunnel, lines []string) []string {
	if t.Hooks == nil {
		return lines
	}
	of := func(name, when string) (list []string) {
		if commands := t.Hooks.Commands[name]; len(commands) > 0 {
			list = append(append(list, "# "+name+when), commands...)
		}
		return list
	}
	lines = append(of(conf.HookPreUp, ""), lines...)
	lines = append(lines, of(conf.HookEstablished, ", for each peer that is")...)
	return append(lines, of(conf.HookPostUp, "")...)
}

// planDataplane says which data plane it is that does the rest.
func planDataplane(t *conf.Tunnel, lines []string) []string {
	steering := fmt.Sprintf("in user space, with a TUN device %s, routing rules that bring it the traffic of the selectors, and an nftables table", t.Name)
	if t.Interface != nil {
		steering = fmt.Sprintf("in user space, with a TUN device %s in the place of an xfrm interface", t.Interface.Name)
	}
	switch t.Dataplane {
	case conf.DataplaneKernel:
		return append([]string{"# data plane: the kernel"}, lines...)
	case conf.DataplaneAuto:
		return append([]string{"# data plane: the kernel; where it cannot, " + steering}, lines...)
	}
	for i, line := range lines {
		if !strings.HasPrefix(line, "#") {
			lines[i] = "# in user space: " + line
		}
	}
	return append([]string{"# data plane: " + steering}, lines...)
}

func planPeer(p *peer) ([]string, error) {
	c := p.conf
	guard, err := guards(p)
	if err != nil {
		return nil, err
	}
	lines := []string{fmt.Sprintf("# %s: guards, so that nothing leaves in clear", c.Name)}
	for _, g := range guard {
		lines = append(lines, g.SetCommands()...)
	}
	if !p.remote.IsValid() && (len(c.LocalTS) == 0 || len(c.RemoteTS) == 0) {
		lines = append(lines, "# and one for its own address, when that is known")
	}
	proposals := make([]string, 0, len(c.IKE.Proposals))
	for _, one := range c.IKE.Proposals {
		proposals = append(proposals, one.String())
	}
	how := map[conf.Start]string{
		conf.StartNow: "IKE_SA_INIT to", conf.StartOnDemand: "at the first packet IKE_SA_INIT to", conf.StartPassive: "wait for IKE_SA_INIT from",
	}[c.Start]
	lines = append(lines, fmt.Sprintf("# %s: %s %v, %s", c.Name, how, c.Endpoint, strings.Join(proposals, ", ")))
	if !p.remote.IsValid() {
		return append(lines, "# then the SAs and policies that are agreed on"), nil
	}
	return append(append(lines, "# then, with what is agreed on"), planSAs(p)...), nil
}

// planSAs are the SAs and policies of the first ESP proposal and all selectors.
func planSAs(p *peer) []string {
	c := p.conf
	l := c.Lifetime
	sa := apply.SA{
		Direction: apply.In, Src: p.remote, Dst: p.local, ReqID: p.reqID, ReplayWindow: c.ESP.ReplayWindow, ESN: c.ESP.ESN, IfID: p.ifID,
		Mode: mode(c.Mode == conf.ModeTransport),
		Soft: apply.Limits{Bytes: l.SoftBytes, Packets: l.SoftPackets, Use: l.SoftUse},
		Hard: apply.Limits{Bytes: l.HardBytes, Packets: l.HardPackets, Use: l.HardUse, Time: l.HardTime},
	}
	for _, n := range needs(&conf.Tunnel{Peers: []conf.Peer{*c}}) {
		sa.Encryption.Name, sa.Integrity.Name = n.Encryption, n.Integrity
	}
	agreed := func(s string) string { return strings.ReplaceAll(s, "0x00000000", "<agreed>") }
	lines := []string{agreed(sa.InstallCommand())}
	sa.Direction, sa.Src, sa.Dst, sa.ReplayWindow, sa.Soft.Time, sa.Mark = apply.Out, p.local, p.remote, 0, l.SoftTime, apply.Mark
	lines = append(lines, agreed(sa.InstallCommand()))
	selectors, err := pairs(resolved(c.LocalTS, p.local), resolved(c.RemoteTS, p.remote))
	if err != nil {
		return lines // the guards would have failed before
	}
	for _, s := range selectors {
		policy := apply.Policy{Selector: s, Action: apply.Protect, Mode: sa.Mode, Local: p.local, Remote: p.remote, ReqID: p.reqID, IfID: p.ifID}
		for _, command := range policy.SetCommands() {
			lines = append(lines, agreed(command))
		}
	}
	return lines
}
