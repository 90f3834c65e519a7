package watch

import (
	"context"
	"fmt"
	"log/slog"

	"ipsec-quick/ike"
)

// trace logs an event or an action for those who look for a fault. Keys hide
// themselves; what only looks like octets is left out.
func (l *loop) trace(what string, v any) {
	if !l.log.Enabled(context.Background(), slog.LevelDebug) {
		return
	}
	var text string
	switch v := v.(type) {
	case ike.Datagram:
		text = fmt.Sprintf("%v to %v, %d octets", v.Remote, v.Local, len(v.Data))
	case ike.Send:
		text = fmt.Sprintf("%v to %v, %d octets", v.Local, v.Remote, len(v.Data))
	case ike.Unclaimed:
		text = v.Claim.Datagram.Remote.String()
	case ike.Adopt:
		text = v.Claim.Datagram.Remote.String()
	default:
		text = fmt.Sprintf("%+v", v)
	}
	l.log.Debug(what, "kind", fmt.Sprintf("%T", v), "detail", text)
}
