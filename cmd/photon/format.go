package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
)

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

// count writes a whole number with commas: 12,345.
func count[T ~int | ~int64](n T) string {
	s := strconv.FormatInt(int64(n), 10)
	start := 0
	if n < 0 {
		start = 1
	}
	for i := len(s) - 3; i > start; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// size writes a number of bytes with three digits: 1.23 GB.
func size(n int64) string {
	x, unit := float64(n), 0
	units := []string{"bytes", "kB", "MB", "GB", "TB", "PB", "EB"}
	for x >= 999.5 && unit < len(units)-1 {
		x, unit = x/1000, unit+1
	}
	if unit == 0 {
		return fmt.Sprintf("%d bytes", n)
	}
	return fmt.Sprintf("%.*f %s", max(0, 3-len(strconv.Itoa(int(x)))), x, units[unit])
}

// rate writes how many a second.
func rate(n int, seconds float64) string {
	if seconds <= 0 {
		return "-"
	}
	return perSecond(float64(n) / seconds)
}

func perSecond(x float64) string {
	if x < 100 {
		return fmt.Sprintf("%.1f", x)
	}
	return count(int64(x + 0.5))
}

func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}
