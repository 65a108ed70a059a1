//go:build !unix && !windows

package main

import "os"

// isTerminalFile takes any device for one: nothing more is known here.
func isTerminalFile(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
