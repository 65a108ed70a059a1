package photon

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// Instructions written as bytes are what the comment beside them says.
func TestRawEncodings(t *testing.T) {
	objdump, err := exec.LookPath("objdump")
	if err != nil {
		t.Skip("objdump (binutils) is not installed")
	}
	files, err := filepath.Glob("*_amd64.s")
	if err != nil || len(files) == 0 {
		t.Skip("the sources are not here")
	}
	raw := regexp.MustCompile(`BYTE \$0x([0-9a-f]{2})`)
	register := regexp.MustCompile(`\b([XYZ])(\d+)`)
	var code []byte
	var want []string
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for i, line := range strings.Split(string(text), "\n") {
			bytes := raw.FindAllStringSubmatch(line, -1)
			if len(bytes) == 0 {
				continue
			}
			_, comment, found := strings.Cut(line, "// ")
			if !found {
				t.Fatalf("%s:%d: bytes without the instruction beside them", file, i+1)
			}
			for _, b := range bytes {
				v, _ := strconv.ParseUint(b[1], 16, 8)
				code = append(code, byte(v))
			}
			operands := register.ReplaceAllStringFunc(comment, func(r string) string {
				return "%" + strings.ToLower(r[:1]) + "mm" + r[1:]
			})
			want = append(want, strings.Join(strings.Fields(strings.ToLower(strings.ReplaceAll(operands, ", ", ","))), " "))
		}
	}
	if len(want) == 0 {
		t.Fatal("no instruction is written as bytes: this test has nothing to do")
	}
	file := filepath.Join(t.TempDir(), "code")
	if err := os.WriteFile(file, code, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(objdump, "-D", "-b", "binary", "-m", "i386:x86-64", "--no-show-raw-insn", file).Output()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(string(out)) {
		if address, instruction, ok := strings.Cut(line, ":\t"); ok && strings.TrimLeft(strings.TrimSpace(address), "0123456789abcdef") == "" {
			got = append(got, strings.Join(strings.Fields(instruction), " "))
		}
	}
	if len(got) != len(want) {
		t.Fatalf("%d instructions disassemble to %d", len(want), len(got))
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("the bytes of %q are %q", want[i], got[i])
		}
	}
}
