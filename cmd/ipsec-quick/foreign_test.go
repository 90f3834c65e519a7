package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const swanctlConf = `connections {
	branch {
		remote_addrs = 198.51.100.7
		vips = 0.0.0.0
		local {
			auth = psk
			id = hq.example.org
		}
		remote {
			auth = psk
			id = branch.example.org
		}
		children {
			lan {
				local_ts = 10.1.0.0/16
				remote_ts = 10.2.0.0/16
				start_action = start
			}
		}
	}
}
secrets {
	ike-branch {
		secret = "0123456789abcdefghijklmnop"
	}
}
`

func TestImport(t *testing.T) {
	folder := t.TempDir()
	source := filepath.Join(folder, "swanctl.conf")
	if err := os.WriteFile(source, []byte(swanctlConf), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out, errOut := invoke("", "import", source)
	if code != exitOK || !strings.Contains(out, "[[peer]]\nname      = \"branch\"\n") || !strings.Contains(errOut, "swanctl.conf:4: connections.branch.vips: ") {
		t.Errorf("exit status %d, %q, %q", code, out, errOut)
	}
	output := filepath.Join(folder, "office.toml")
	code, nothing, errOut := invoke("", "import", source, "-o", output)
	if code != exitOK || nothing != "" || !strings.Contains(errOut, output+": good, 1 peer") || strings.Contains(errOut, "0123456789abcdef") {
		t.Errorf("exit status %d, %q, %q", code, nothing, errOut)
	}
	text, err := os.ReadFile(output)
	if err != nil || string(text) != out {
		t.Errorf("%v: %q", err, text)
	}
	if info, err := os.Stat(output); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, mode %v", err, info.Mode())
	}
	if code, _, errOut := invoke("", "import", source, "-o", output); code != exitOther || !strings.Contains(errOut, "is there already") {
		t.Errorf("over a file: exit status %d, %q", code, errOut)
	}
	for _, args := range [][]string{
		{"import"}, {"import", source, source}, {"import", source, "--from", "iked"}, {"import", source, "--local", "here"},
		{"export", output}, {"export", output, "--to", "iked"}, {"export", "--to", "strongswan"}, {"export", output, "--to", "strongswan", "--peer", "x"},
	} {
		if code, _, errOut := invoke("", args...); code != exitUsage || errOut == "" {
			t.Errorf("%q: exit status %d, %q", args, code, errOut)
		}
	}
}

func TestImportRefused(t *testing.T) {
	folder := t.TempDir()
	source := filepath.Join(folder, "ipsec.conf")
	if err := os.WriteFile(source, []byte("conn old\n\tkeyexchange=ikev1\n\tleft=%defaultroute\n\tright=198.51.100.7\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out, errOut := invoke("", "import", source)
	if code != exitBadFile || out != "" || !strings.Contains(errOut, "ipsec.conf:2: conn old: keyexchange: IKEv1 is not there") {
		t.Errorf("exit status %d, %q, %q", code, out, errOut)
	}
	// A link does not lead out of the folder.
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte(": PSK \"x\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(secret, filepath.Join(folder, "ipsec.secrets")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(source, []byte("conn new\n\tauthby=secret\n\tleft=%defaultroute\n\tright=198.51.100.7\n\tauto=start\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out, errOut = invoke("", "import", source)
	if code != exitOK || !strings.Contains(out, "psk_file = \"198.51.100.7.psk\"") || !strings.Contains(errOut, "ipsec.secrets: this file was not read") {
		t.Errorf("exit status %d, %q, %q", code, out, errOut)
	}
	if code, _, errOut := invoke("", "import", filepath.Join(folder, "none")); code != exitOther || !strings.Contains(errOut, "no such file") {
		t.Errorf("exit status %d, %q", code, errOut)
	}
}

func TestExport(t *testing.T) {
	path := tunnelFile(t, goodTunnel)
	code, out, errOut := invoke("", "export", path, "--to", "strongswan")
	if code != exitOK || !strings.Contains(out, "remote_addrs = 192.0.2.1") || strings.Contains(out, "0123456789abcdef") || !strings.Contains(errOut, "--with-secret") {
		t.Errorf("exit status %d, %q, %q", code, out, errOut)
	}
	code, out, errOut = invoke("", "export", path, "--to", "ipsec-quick", "--peer", "branch", "--with-secret")
	if code != exitOK || !strings.Contains(out, "psk       = \"0123456789abcdefghijklmnop\"") || errOut != "" {
		t.Errorf("exit status %d, %q, %q", code, out, errOut)
	}
}
