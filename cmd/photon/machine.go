package main

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// What Linux tells of a process and its machine; elsewhere nothing is known.

// statusBytes is a field of /proc/self/status, or 0.
func statusBytes(field string) int64 {
	data, _ := os.ReadFile("/proc/self/status")
	return kilobytes(data, field)
}

// kilobytes finds a line such as "VmHWM:  1234 kB".
func kilobytes(data []byte, field string) int64 {
	for line := range bytes.Lines(data) {
		if name, rest, ok := bytes.Cut(line, []byte(":")); ok && string(name) == field {
			n, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(string(rest)), " kB"), 10, 64)
			return n << 10
		}
	}
	return 0
}

// residentBytes is the memory that the process has, peakBytes the most that it had since resetPeak.
func residentBytes() int64 { return statusBytes("VmRSS") }
func peakBytes() int64     { return statusBytes("VmHWM") }
func resetPeak()           { os.WriteFile("/proc/self/clear_refs", []byte("5"), 0) }

// availableBytes is the memory that programs could have; 0: not known.
func availableBytes() int64 {
	data, _ := os.ReadFile("/proc/meminfo")
	return kilobytes(data, "MemAvailable")
}

// machineName is the processor's, and how many there are.
func machineName() string {
	name := runtime.GOARCH
	data, _ := os.ReadFile("/proc/cpuinfo")
	for line := range bytes.Lines(data) {
		if key, value, ok := bytes.Cut(line, []byte(":")); ok && strings.TrimSpace(string(key)) == "model name" {
			name = strings.TrimSpace(string(value))
			break
		}
	}
	return fmt.Sprintf("%d × %s", runtime.NumCPU(), name)
}

// others tells how much of the processors other programs take.
type others struct {
	begin     time.Time
	all, mine int64 // ticks of a hundredth of a second
}

func watchOthers() others {
	all, mine := processorTicks()
	return others{time.Now(), all, mine}
}

// share is what they have taken since, of all; -1: not known.
func (o others) share() float64 {
	all, mine := processorTicks()
	ticks := time.Since(o.begin).Seconds() * 100 * float64(runtime.NumCPU())
	if all == 0 || ticks < 1 {
		return -1
	}
	return min(1, max(0, float64(all-o.all-(mine-o.mine))/ticks))
}

// processorTicks is the time that all programs have run, with what a host took away, and that of this one.
func processorTicks() (all, mine int64) {
	stat, _ := os.ReadFile("/proc/stat")
	line, _, _ := bytes.Cut(stat, []byte("\n"))
	// cpu user nice system idle iowait irq softirq steal
	for i, field := range strings.Fields(string(line)) {
		if n, err := strconv.ParseInt(field, 10, 64); err == nil && i <= 8 && i != 4 && i != 5 {
			all += n
		}
	}
	self, _ := os.ReadFile("/proc/self/stat")
	if i := bytes.LastIndexByte(self, ')'); i >= 0 { // the program's name may hold anything
		if fields := strings.Fields(string(self[i+1:])); len(fields) > 12 {
			user, _ := strconv.ParseInt(fields[11], 10, 64)
			system, _ := strconv.ParseInt(fields[12], 10, 64)
			mine = user + system
		}
	}
	return all, mine
}
