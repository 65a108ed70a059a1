package photon

import (
	"fmt"
	"os"
	"slices"
	"strings"
)

// errKernel is what is wrong with PHOTON_KERNEL, which names the kernels to use instead of the best. Load reports it.
var errKernel = setKernel(os.Getenv("PHOTON_KERNEL"))

// currentKernel is the one of kernelTiers in use.
var currentKernel string

// setKernel selects one of kernelTiers, the best for "". It is no business of a running product.
func setKernel(name string) error {
	tiers := kernelTiers()
	if name == "" {
		name = tiers[0]
	}
	if !slices.Contains(tiers, name) {
		setKernel("")
		return fmt.Errorf("photon: PHOTON_KERNEL=%s: no such kernels on this machine: set one of %s, or nothing: %w",
			name, strings.Join(tiers, ", "), ErrInvalid)
	}
	currentKernel = name
	useKernel(name)
	return nil
}
