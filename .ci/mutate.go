//go:build ignore

// Mutate changes the code in one place at a time and sees whether a test fails: docs/trust.md tells what survived. It
// runs in the folder of the package.
//
//	go run .ci/mutate.go [-o OUT.csv] [-j 2] [-n 0] [-most 20] [-patience 10] [-again TABLE.csv] FILE.go…
//
// The changes are those that gremlins makes by default: the bounds and the sense of comparisons, arithmetic, signs, ++
// and --. All are compiled at once, each behind a number that the environment names, so that none costs a compiler.
// Every test runs once, alone, to see how long it takes and which places it reaches. A change then meets the tests
// that reach it, short ones first, until one fails or they have taken -most seconds. OUT.csv has a row a change: the
// test that failed, or how many passed; a change that has its row is left out. With -n, so many places of a file are
// tried; with -again, the changes that TABLE.csv has without a test that failed, or with one that did not end: which
// takes -patience seconds and that many times what it takes alone.
package main

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"log"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// helpers are the changes: n is the number of each, and 0 none. reached is what each of them does first.
const helpers = `package photon

import (
	"cmp"
	"os"
	"strconv"
)

var mutant, _ = strconv.Atoi(os.Getenv("PHOTON_MUTANT"))

type mutInteger interface {
	~int | ~int8 | ~int16 | ~int32 | ~int64 | ~uint | ~uint8 | ~uint16 | ~uint32 | ~uint64 | ~uintptr
}

type mutNumber interface {
	mutInteger | ~float32 | ~float64
}

func mutFlip(n int, b bool) bool {
	reached(n)
	return b != (mutant == n)
}

func mutLess[T cmp.Ordered](n int, a, b T) bool {
	reached(n)
	switch mutant {
	case n:
		return a <= b
	case n + 1:
		return a >= b
	}
	return a < b
}

func mutAtMost[T cmp.Ordered](n int, a, b T) bool {
	reached(n)
	switch mutant {
	case n:
		return a < b
	case n + 1:
		return a > b
	}
	return a <= b
}

func mutMore[T cmp.Ordered](n int, a, b T) bool    { return mutLess(n, b, a) }
func mutAtLeast[T cmp.Ordered](n int, a, b T) bool { return mutAtMost(n, b, a) }

func mutAdd[T mutNumber](n int, a, b T) T {
	reached(n)
	if mutant == n {
		return a - b
	}
	return a + b
}

func mutSub[T mutNumber](n int, a, b T) T {
	reached(n)
	if mutant == n {
		return a + b
	}
	return a - b
}

func mutMul[T mutNumber](n int, a, b T) T {
	reached(n)
	if mutant == n {
		return a / b
	}
	return a * b
}

func mutQuo[T mutNumber](n int, a, b T) T {
	reached(n)
	if mutant == n {
		return a * b
	}
	return a / b
}

func mutRem[T mutInteger](n int, a, b T) T {
	reached(n)
	if mutant == n {
		return a * b
	}
	return a % b
}

func mutNeg[T mutNumber](n int, a T) T {
	reached(n)
	if mutant == n {
		return a
	}
	return -a
}

func mutStep[T mutNumber](n int, _ T, by int) T {
	reached(n)
	if (mutant == n) != (by < 0) {
		var one T = 1
		return -one
	}
	return 1
}
`

// unseen and seen are what reached is: nothing, or a file that has the numbers.
const (
	unseen = `package photon

func reached(int) {}
`
	seen = `package photon

import (
	"fmt"
	"os"
	"sync"
	"sync/atomic"
)

var (
	had   [1 << 16]atomic.Bool
	toHad = sync.OnceValue(func() *os.File {
		f, err := os.Create(os.Getenv("PHOTON_REACHED"))
		if err != nil {
			panic(err)
		}
		return f
	})
)

func reached(n int) {
	if !had[n].Load() && had[n].CompareAndSwap(false, true) {
		fmt.Fprintln(toHad(), n)
	}
}
`
)

// helper is the function, and the changes that it makes, of an operator.
var helper = map[token.Token]struct {
	name    string
	changes []string
}{
	token.EQL: {"mutFlip", []string{"== is !="}}, token.NEQ: {"mutFlip", []string{"!= is =="}},
	token.LSS: {"mutLess", []string{"< is <=", "< is >="}}, token.LEQ: {"mutAtMost", []string{"<= is <", "<= is >"}},
	token.GTR: {"mutMore", []string{"> is >=", "> is <="}}, token.GEQ: {"mutAtLeast", []string{">= is >", ">= is <"}},
	token.ADD: {"mutAdd", []string{"+ is -"}}, token.SUB: {"mutSub", []string{"- is +"}},
	token.MUL: {"mutMul", []string{"* is /"}},
	token.QUO: {"mutQuo", []string{"/ is *"}}, token.REM: {"mutRem", []string{"% is *"}},
}

// A place is where some changes are made; n is the number of the first.
type place struct {
	file         string
	line, column int // of the operator
	begins       int // the line where what is replaced begins
	n            int
	changes      []string
	edits        []edit
}

// An edit puts text where [from, to) of a file was. Of edits at one offset, closing ones come first, inner ones before
// outer; then opening ones, outer ones before inner.
type edit struct {
	from, to int
	text     string
	closes   bool
	depth    int
}

// places finds all in a file.
func places(fset *token.FileSet, path string, source []byte) []*place {
	file, err := parser.ParseFile(fset, path, source, 0)
	if err != nil {
		log.Fatal(err)
	}
	var out []*place
	offset := func(p token.Pos) int { return fset.Position(p).Offset }
	depth := 0
	ast.Inspect(file, func(node ast.Node) bool {
		if node == nil {
			depth--
			return true
		}
		depth++
		add := func(at token.Pos, changes []string, edits ...edit) {
			p := fset.Position(at)
			for i := range edits {
				edits[i].depth = depth
			}
			begins := fset.Position(node.Pos()).Line
			out = append(out, &place{
				file: path, line: p.Line, column: p.Column, begins: begins, changes: changes, edits: edits,
			})
		}
		switch e := node.(type) {
		case *ast.BinaryExpr:
			h, ok := helper[e.Op]
			if !ok {
				break
			}
			at, op := offset(e.OpPos), ","
			if h.name == "mutFlip" {
				op = e.Op.String()
			}
			add(e.OpPos, h.changes, edit{from: offset(e.X.Pos()), to: offset(e.X.Pos()), text: h.name + "(#, "},
				edit{from: at, to: at + len(e.Op.String()), text: op},
				edit{from: offset(e.Y.End()), to: offset(e.Y.End()), text: ")", closes: true})
		case *ast.UnaryExpr:
			if e.Op == token.SUB {
				add(e.OpPos, []string{"-x is x"},
					edit{from: offset(e.OpPos), to: offset(e.OpPos) + 1, text: "mutNeg(#, "},
					edit{from: offset(e.X.End()), to: offset(e.X.End()), text: ")", closes: true})
			}
		case *ast.IncDecStmt:
			x, by, change := string(source[offset(e.X.Pos()):offset(e.X.End())]), "1", "++ is --"
			if e.Tok == token.DEC {
				by, change = "-1", "-- is ++"
			}
			add(e.TokPos, []string{change},
				edit{from: offset(e.TokPos), to: offset(e.TokPos) + 2, text: " += mutStep(#, " + x + ", " + by + ")"})
		}
		return true
	})
	return out
}

// of are the places in a file.
func of(path string, all []*place) []*place {
	return slices.DeleteFunc(slices.Clone(all), func(p *place) bool { return p.file != path })
}

// changed is the source with all places of it.
func changed(source []byte, some []*place) []byte {
	var edits []edit
	for _, p := range some {
		for _, e := range p.edits {
			e.text = strings.ReplaceAll(e.text, "#", strconv.Itoa(p.n))
			edits = append(edits, e)
		}
	}
	slices.SortFunc(edits, func(a, b edit) int {
		switch {
		case a.from != b.from:
			return a.from - b.from
		case a.closes != b.closes:
			if a.closes {
				return -1
			}
			return 1
		case a.closes:
			return b.depth - a.depth
		}
		return a.depth - b.depth
	})
	var out bytes.Buffer
	at := 0
	for _, e := range edits {
		out.Write(source[at:e.from])
		out.WriteString(e.text)
		at = e.to
	}
	out.Write(source[at:])
	return out.Bytes()
}

// build compiles the tests with all changes, but for those that the compiler does not take: constants, strings.
func build(folder, binary, reached string, sources map[string][]byte, all []*place) (kept []*place) {
	where := regexp.MustCompile(`(?m)^(?:\S*/)?(\w+\.go):(\d+):\d+: `)
	replace := map[string]string{}
	put := func(path string, b []byte) {
		replace[absolute(path)] = filepath.Join(folder, path)
		write(filepath.Join(folder, path), b)
	}
	name := regexp.MustCompile(`(?m)^package .*`)
	in := name.Find(sources[all[0].file])
	put("mutant_helpers.go", name.ReplaceAll([]byte(helpers), in))
	put("mutant_reached.go", name.ReplaceAll([]byte(reached), in))
	for {
		for path, source := range sources {
			put(path, changed(source, of(path, all)))
		}
		b, _ := json.Marshal(map[string]any{"Replace": replace})
		overlay := filepath.Join(folder, "overlay.json")
		write(overlay, b)
		compile := exec.Command("go", "test", "-vet=off", "-gcflags=-e", "-overlay", overlay, "-c", "-o", binary, ".")
		out, err := compile.CombinedOutput()
		if err == nil {
			return all
		}
		refused := map[string]bool{}
		for _, m := range where.FindAllSubmatch(out, -1) {
			refused[string(m[1])+":"+string(m[2])] = true
		}
		had := len(all)
		all = slices.DeleteFunc(all, func(p *place) bool {
			return refused[p.file+":"+strconv.Itoa(p.line)] || refused[p.file+":"+strconv.Itoa(p.begins)]
		})
		if len(all) == had {
			log.Fatalf("%s", out)
		}
	}
}

func absolute(path string) string {
	path, err := filepath.Abs(path)
	if err != nil {
		log.Fatal(err)
	}
	return path
}

func write(path string, b []byte) {
	if err := os.WriteFile(path, b, 0o644); err != nil {
		log.Fatal(err)
	}
}

// run is the test that fails with change n, of those named, or "".
func run(binary string, n int, limit time.Duration, tests []string, env ...string) string {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	c := exec.CommandContext(ctx, "prlimit", "--as=12000000000", binary, "-test.failfast",
		"-test.run", "^("+strings.Join(tests, "|")+")$")
	c.Env = append(append(os.Environ(), "PHOTON_MUTANT="+strconv.Itoa(n)), env...)
	out, err := c.CombinedOutput()
	switch failed := regexp.MustCompile(`(?m)^--- FAIL: (\S+)`).FindSubmatch(out); {
	case err == nil:
		return ""
	case failed != nil:
		return string(failed[1])
	case ctx.Err() != nil:
		return "time"
	case errors.As(err, new(*exec.ExitError)):
		return "crash"
	}
	log.Fatal(err)
	return ""
}

// A test takes so long alone.
type test struct {
	name string
	took time.Duration
}

// survey runs every test alone. by[n] are those that reach n, short ones first.
func survey(folder, binary string, workers int) (by map[int][]test) {
	out, err := exec.Command("env", "PHOTON_REACHED="+os.DevNull, binary, "-test.list", ".").Output()
	if err != nil {
		log.Fatal(err)
	}
	by = map[int][]test{}
	var lock sync.Mutex
	each(workers, strings.Fields(string(out)), func(name string) {
		if strings.HasPrefix(name, "Benchmark") {
			return
		}
		file := filepath.Join(folder, name)
		begin := time.Now()
		if failed := run(binary, 0, 5*time.Minute, []string{name}, "PHOTON_REACHED="+file); failed != "" {
			log.Printf("%s is left out: without a change it ends by %s", name, failed)
			return
		}
		took := time.Since(begin)
		lock.Lock()
		defer lock.Unlock()
		b, _ := os.ReadFile(file)
		for _, n := range strings.Fields(string(b)) {
			i, _ := strconv.Atoi(n)
			by[i] = append(by[i], test{name, took})
		}
	})
	for _, tests := range by {
		slices.SortFunc(tests, func(a, b test) int { return int(a.took - b.took) })
	}
	return by
}

// fate is the test that fails with change n, or "" and how many passed. Tests run together up to a second of them.
func fate(binary string, n int, tests []test, most time.Duration, patience int) (failed string, passed int) {
	var total time.Duration
	for len(tests) > 0 && total < most {
		var names []string
		var took time.Duration
		for len(tests) > 0 && (took == 0 || took+tests[0].took < time.Second+total) {
			names, took, tests = append(names, tests[0].name), took+tests[0].took, tests[1:]
		}
		if failed := run(binary, n, time.Duration(patience)*(time.Second+took), names); failed != "" {
			return failed, passed
		}
		passed += len(names)
		total += took
	}
	return "", passed
}

// each calls f for all of some, so many at once.
func each[T any](workers int, some []T, f func(T)) {
	var crew sync.WaitGroup
	work := make(chan T)
	for range workers {
		crew.Go(func() {
			for x := range work {
				f(x)
			}
		})
	}
	for _, x := range some {
		work <- x
	}
	close(work)
	crew.Wait()
}

// table is the rows of a file, none if there is no file.
func table(name string) [][]string {
	f, err := os.Open(name)
	if err != nil {
		return nil
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		log.Fatal(err)
	}
	return rows
}

func main() {
	log.SetFlags(log.Ltime)
	to := flag.String("o", "mutants.csv", "`file` of rows")
	workers := flag.Int("j", 2, "tests at once")
	sample := flag.Int("n", 0, "places of a file; 0: all")
	most := flag.Int("most", 20, "`seconds` of tests for a change")
	patience := flag.Int("patience", 10, "`times` the time of a test that it may take, and seconds")
	again := flag.String("again", "", "`table` of changes to try again")
	flag.Parse()

	fset, sources := token.NewFileSet(), map[string][]byte{}
	var all []*place
	for _, path := range flag.Args() {
		source, err := os.ReadFile(path)
		if err != nil {
			log.Fatal(err)
		}
		sources[path] = source
		all = append(all, places(fset, path, source)...)
	}
	n := 1
	for _, p := range all {
		p.n = n
		n += len(p.changes)
	}
	folder, err := os.MkdirTemp("", "mutate")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(folder)
	binary, surveyor := filepath.Join(folder, "test"), filepath.Join(folder, "survey")
	found := len(all)
	all = build(folder, surveyor, seen, sources, all)
	build(folder, binary, unseen, sources, all)
	log.Printf("%d places, of which the compiler takes %d", found, len(all))
	by := survey(folder, surveyor, *workers)
	log.Printf("surveyed")

	had := map[string]bool{}
	key := func(row []string) string { return strings.Join(row[:4], ",") }
	for _, row := range table(*to) {
		had[key(row)] = true
	}
	alive := map[string]bool{} // without the line, which may be another by now
	for _, row := range table(*again) {
		if row[4] == "" || row[4] == "time" {
			row[1], row[4], row[5] = "", "", ""
			alive[strings.Join(row, ",")] = true
		}
	}
	f, err := os.OpenFile(*to, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		log.Fatal(err)
	}
	type change struct {
		n     int
		place *place
		row   []string // file, line, column, change, killer, tests that passed, text
	}
	var changes []change
	for _, path := range flag.Args() {
		mine := of(path, all)
		if *sample > 0 {
			random := rand.New(rand.NewPCG(1, uint64(len(mine))))
			random.Shuffle(len(mine), func(i, j int) { mine[i], mine[j] = mine[j], mine[i] })
			mine = mine[:min(*sample, len(mine))]
		}
		for _, p := range mine {
			text := strings.TrimSpace(strings.Split(string(sources[path]), "\n")[p.line-1])
			for i, what := range p.changes {
				row := []string{path, strconv.Itoa(p.line), strconv.Itoa(p.column), what, "", "", text}
				anywhere := strings.Join([]string{path, "", row[2], what, "", "", text}, ",")
				if !had[key(row)] && (*again == "" || alive[anywhere]) {
					changes = append(changes, change{p.n + i, p, row})
				}
			}
		}
	}
	var writing sync.Mutex
	rows := csv.NewWriter(f)
	each(*workers, changes, func(c change) {
		failed, passed := fate(binary, c.n, by[c.place.n], time.Duration(*most)*time.Second, *patience)
		c.row[4], c.row[5] = failed, strconv.Itoa(passed)
		writing.Lock()
		defer writing.Unlock()
		rows.Write(c.row)
		rows.Flush()
	})
}
