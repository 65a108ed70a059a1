package photon

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// The macros of words_arm64.h assemble to the instructions that stand behind them, for many operands.
func TestWords(t *testing.T) {
	objdump, err := exec.LookPath("aarch64-linux-gnu-objdump")
	if err != nil {
		t.Skip("aarch64-linux-gnu-objdump (binutils-aarch64-linux-gnu) is not installed")
	}
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("no go command to assemble with")
	}
	header, err := os.ReadFile("words_arm64.h")
	if err != nil {
		t.Skip("the sources are not here")
	}
	var calls, want []string
	define := regexp.MustCompile(`(?m)^#define (\w+)\(([a-z, ]+)\) +WORD [^/\n]+// (.+)$`)
	macros := define.FindAllStringSubmatch(string(header), -1)
	if n := strings.Count(string(header), "WORD"); n == 0 || n != len(macros) {
		t.Fatalf("%d words, but %d with the instruction behind them", n, len(macros))
	}
	for _, m := range macros {
		name, operands, mnemonic := m[1], strings.Split(m[2], ", "), m[3]
		for shift := range 32 {
			arguments := make([]string, len(operands))
			instruction := mnemonic
			for i, operand := range operands {
				value := (shift + 11*i) % 32
				if operand == "i" {
					value = shift % 4
				}
				arguments[i] = strconv.Itoa(value)
				instruction = strings.ReplaceAll(instruction, "{"+operand+"}", arguments[i])
			}
			calls = append(calls, fmt.Sprintf("\t%s(%s)", name, strings.Join(arguments, ", ")))
			want = append(want, instruction)
		}
	}

	dir := t.TempDir()
	source, object, code := filepath.Join(dir, "words.s"), filepath.Join(dir, "words.o"), filepath.Join(dir, "words")
	text := "#include \"words_arm64.h\"\nTEXT ·words(SB), 4, $0-0\n" + strings.Join(calls, "\n") + "\n"
	if err := os.WriteFile(source, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	assembled := goTool(t, "asm", "-p", "photon", "-I", ".", "-o", object, source)
	if assembled != "" {
		t.Fatal(assembled)
	}
	var words []byte
	for line := range strings.Lines(goTool(t, "objdump", object)) {
		fields := strings.Fields(line) // words.s:3, address, word, instruction
		if len(fields) > 2 && strings.HasPrefix(fields[0], "words.s:") {
			word, err := strconv.ParseUint(fields[2], 16, 32)
			if err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			words = binary.LittleEndian.AppendUint32(words, uint32(word))
		}
	}
	if err := os.WriteFile(code, words, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(objdump, "-D", "-b", "binary", "-m", "aarch64", "-M", "no-aliases", "--no-show-raw-insn", code).Output()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(string(out)) {
		if address, instruction, ok := strings.Cut(line, ":\t"); ok && strings.TrimLeft(strings.TrimSpace(address), "0123456789abcdef") == "" {
			got = append(got, strings.Join(strings.Fields(instruction), " "))
		}
	}
	if len(got) < len(want) { // the assembler may append padding
		t.Fatalf("%d instructions disassemble to %d", len(want), len(got))
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("%s is %q, want %q", strings.TrimSpace(calls[i]), got[i], want[i])
		}
	}
}

// goTool runs a tool of the go command for arm64 and returns what it prints.
func goTool(t *testing.T, arguments ...string) string {
	t.Helper()
	c := exec.Command("go", append([]string{"tool"}, arguments...)...)
	c.Env = append(os.Environ(), "GOARCH=arm64")
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("go tool %s: %v: %s", arguments[0], err, out)
	}
	return string(out)
}
