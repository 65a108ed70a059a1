package photon

import (
	"flag"
	"testing"
)

// The tests that search by count do little of it by themselves, and all with -campaign: .ci/campaign runs these, and
// docs/trust.md says what they reached.
var campaign = flag.Bool("campaign", false, "run the whole counts of .ci/campaign")

// times is how often a search is made: few times, fewer with -short, or many in a campaign.
func times(few, many int) int {
	switch {
	case *campaign:
		return many
	case testing.Short():
		return max(1, few/10)
	}
	return few
}

// figure tells what a search reached, in a line that .ci/campaign keeps.
func figure(t testing.TB, format string, args ...any) {
	t.Helper()
	t.Logf("figure: "+format, args...)
}
