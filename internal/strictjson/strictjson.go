// Package strictjson refuses what encoding/json takes in silence, of which whoever sent it means something else.
package strictjson

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// An Error says what is wrong with a text, and of which field, "" where of none.
type Error struct{ Field, Message string }

func (e *Error) Error() string { return e.Message }

// Check is nil, or an *Error, where data is no JSON, is not Unicode, which encoding/json replaces by U+FFFD, or has an
// object with two fields of one name, of which it takes the last. Objects nested deeper than depth may have such
// fields; at depth 1 is data itself. Messages call data by the name what.
func Check(what string, data []byte, depth int) error {
	for at := 0; at < len(data); {
		r, n := utf8.DecodeRune(data[at:])
		if r == utf8.RuneError && n == 1 {
			return failed("", `the %s is not UTF-8: its byte %d is \x%02x: encode it as UTF-8`, what, at, data[at])
		}
		at += n
	}
	if bytes.HasPrefix(data, []byte("\ufeff")) {
		return failed("", "the %s begins with a byte order mark: leave that out", what)
	}
	var whole json.RawMessage
	if err := json.Unmarshal(data, &whole); err != nil {
		return failed("", "the %s is no JSON: %v", what, err)
	}
	var names []map[string]bool // of the objects and lists that are open
	for at := 0; at < len(data); at++ {
		switch data[at] {
		case '{', '[':
			names = append(names, nil)
		case '}', ']':
			names = names[:len(names)-1]
		case '"':
			text, half := quoted(data[at:])
			if half >= 0 {
				return failed("", "%s at byte %d of the %s is half of a surrogate pair, which is no text: write both "+
					"halves, or the character itself", data[at+half:][:6], at+half, what)
			}
			at += len(text) - 1
			isName := bytes.HasPrefix(bytes.TrimLeft(data[at+1:], " \t\r\n"), []byte(":"))
			if !isName || len(names) > depth {
				continue
			}
			var name string
			json.Unmarshal(text, &name)
			object := &names[len(names)-1]
			if (*object)[name] {
				return failed(name, "field %.80q stands twice in one object: give it once", name)
			}
			if *object == nil {
				*object = map[string]bool{}
			}
			(*object)[name] = true
		}
	}
	return nil
}

func failed(field, format string, args ...any) error {
	return &Error{field, fmt.Sprintf(format, args...)}
}

// quoted returns the string that valid JSON begins with, or where half of a surrogate pair stands in it, else -1.
func quoted(data []byte) (text []byte, half int) {
	for at := 1; ; at++ {
		switch {
		case data[at] == '"':
			return data[:at+1], -1
		case data[at] != '\\':
		case data[at+1] != 'u':
			at++
		default:
			if r := escaped(data[at:]); utf16.IsSurrogate(r) {
				if utf16.DecodeRune(r, escaped(data[at+6:])) == utf8.RuneError {
					return nil, at
				}
				at += 6
			}
			at += 5
		}
	}
}

// escaped is the code of the \u and four digits that data begins with, else -1.
func escaped(data []byte) rune {
	if !bytes.HasPrefix(data, []byte(`\u`)) {
		return -1
	}
	code, err := strconv.ParseUint(string(data[2:6]), 16, 16)
	if err != nil {
		return -1
	}
	return rune(code)
}
