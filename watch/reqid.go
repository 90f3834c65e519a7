package watch

import (
	"hash/fnv"

	"ipsec-quick/apply"
	"ipsec-quick/conf"
)

// reqIDBase keeps our ReqIDs away from the small numbers that other IKE daemons
// count up from.
const reqIDBase = 1 << 30

// chooseReqIDs gives each peer a ReqID: the one it has already, else a hash of
// its name and the tunnel's, so that it is the same the next time; where that
// is taken on this host, the next one.
func chooseReqIDs(t *conf.Tunnel, before map[string]uint32, others map[string]*facts) map[string]uint32 {
	taken := map[uint32]bool{}
	for _, f := range others {
		for _, id := range f.ReqIDs {
			taken[id] = true
		}
	}
	for _, id := range before {
		taken[id] = true
	}
	ids := map[string]uint32{}
	for peer, id := range before {
		ids[peer] = id // also of a peer that is in the file no more: its SAs are to be found
	}
	for i := range t.Peers {
		name := t.Peers[i].Name
		if ids[name] != 0 {
			continue
		}
		h := fnv.New32a()
		_, _ = h.Write([]byte(t.Name + "\x00" + name))
		id := h.Sum32()
		for {
			id = id&apply.MaxReqID | reqIDBase
			if !taken[id] {
				break
			}
			id++
		}
		taken[id], ids[name] = true, id
	}
	return ids
}
