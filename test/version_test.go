package lab_test

import (
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// TestPackageVersion: what git describes as a version of the packages.
func TestPackageVersion(t *testing.T) {
	outside(t)
	for described, want := range map[string]string{
		"v1.2.3":                           `1\.2\.3`,
		"v1.2.3-dirty":                     `1\.2\.3\.dirty`,
		"v1.2.3-rc1":                       `1\.2\.3~rc1`,
		"v1.2.3-4-g0123456789ab":           `1\.2\.3\+4\.g0123456789ab`,
		"v1.2.3-rc1-4-g0123456789ab-dirty": `1\.2\.3~rc1\+4\.g0123456789ab\.dirty`,
		"0123456789ab":                     `0~20\d{6}\.0123456789ab`,
		"0123456789ab-dirty":               `0~20\d{6}\.0123456789ab\.dirty`,
	} {
		cmd := exec.Command("../.ci/nfpm/version", described)
		out, err := cmd.CombinedOutput()
		if got := strings.TrimSpace(string(out)); err != nil || !regexp.MustCompile("^"+want+"$").MatchString(got) {
			t.Errorf("%s: %q, %v; want %s", described, got, err, want)
		}
	}
}
