package xfrm

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"ipsec-quick/apply"
)

func TestExplain(t *testing.T) {
	sa := testSA()
	for _, c := range []struct {
		errno  unix.Errno
		detail string
		want   string
	}{
		{unix.EPERM, "", "CAP_NET_ADMIN"},
		{unix.EPROTONOSUPPORT, "Requested type not found", "CONFIG_INET_ESP"},
		{unix.ENOSYS, "Requested AUTH_TRUNC algorithm not found", "no hmac-sha2-256-128 (hmac(sha256))"},
		{unix.ENOSYS, "Requested CRYPT algorithm not found", "no aes-cbc (cbc(aes))"},
		{unix.ENOENT, "Kernel was unable to initialize cryptographic operations", "CONFIG_CRYPTO_ECHAINIV"},
		{unix.EINVAL, "Some detail", "install: invalid argument (kernel: Some detail)"},
	} {
		err := explain(&OpError{Op: "install", Errno: c.errno, Detail: c.detail}, sa)
		if !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %q, want %q in it", c.errno, err, c.want)
		}
	}
	if err := explain(nil, sa); err != nil {
		t.Error(err)
	}
	for errno, want := range map[unix.Errno]error{unix.ESRCH: apply.ErrAbsent, unix.ENOENT: apply.ErrAbsent, unix.EEXIST: apply.ErrExists} {
		if err := error(&OpError{Errno: errno}); !errors.Is(err, want) || !errors.Is(err, errno) {
			t.Errorf("%v is not %v", err, want)
		}
	}
}

// An acknowledgement as Linux sends it: error, the request's header, and text.
func TestParseAck(t *testing.T) {
	m := &message{}
	m.u32(0xffffffff) // -EPERM
	m.pad(16)         // capped header
	m.attr(1, func() { m.bytes([]byte("not so\x00")) })
	h := header{kind: unix.NLMSG_ERROR, flags: unix.NLM_F_CAPPED | unix.NLM_F_ACK_TLVS}
	var op *OpError
	if err := parseAck("try", h, m.b); !errors.As(err, &op) || op.Errno != unix.EPERM || op.Detail != "not so" {
		t.Errorf("%v", err)
	}
	if err := parseAck("try", h, make([]byte, 20)); err != nil {
		t.Errorf("success: %v", err)
	}
	if err := parseAck("try", h, []byte{0}); !errors.Is(err, errShort) {
		t.Errorf("short: %v", err)
	}
}
