// Package strictjson reads JSON of unknown origin strictly: RFC 8259 and nothing more, valid UTF-8, no half of a
// surrogate pair, no key twice in an object, keys compared exactly, nested no deeper than 64. encoding/json takes much
// of the rest in silence, for something else than whoever sent it means.
package strictjson

import "fmt"

// An Error says what is wrong at which byte of a text, and which key of it stands twice, "" where that is not it.
type Error struct {
	Field, Message string
	kind           error
}

func (e *Error) Error() string { return e.Message }
func (e *Error) Unwrap() error { return e.kind }

// Check is nil, or an *Error where data is no strict JSON. Objects nested deeper than depth may have a key twice; at
// depth 1 is data itself. Messages call data by the name what.
func Check(what string, data []byte, depth int) error {
	r, err := New(data, fmt.Errorf("the %s is to be strict JSON", what))
	if err == nil {
		r.once = depth
		err = r.Skip()
	}
	if err == nil {
		err = r.End()
	}
	return err
}
