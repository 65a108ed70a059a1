package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"unicode/utf8"
)

// batchLine is what a line of IN asks for.
type batchLine struct {
	ID           json.RawMessage
	Prompt, Text *string
	N            *int
	Seed         *uint64
}

// parseLine reads a line of IN, of which nothing is ignored. Beside an error the line has its ID where that was found.
func parseLine(data []byte) (line batchLine, err error) {
	switch {
	case !utf8.Valid(data):
		return line, errors.New("the line is not UTF-8")
	case bytes.HasPrefix(data, []byte("\ufeff")):
		return line, errors.New("the line begins with a byte order mark: remove it")
	}
	var values map[string]json.RawMessage
	if err := json.Unmarshal(data, &values); errors.As(err, new(*json.SyntaxError)) {
		return line, err
	} else if err != nil || values == nil {
		return line, errors.New("the line is not a JSON object")
	}
	if line.ID = values["id"]; halfPair(data) {
		return line, errors.New("an escape of the line is half of a surrogate pair, which is no character")
	}
	keys := json.NewDecoder(bytes.NewReader(data))
	for keys.Token(); keys.More(); {
		token, _ := keys.Token()
		var value json.RawMessage
		keys.Decode(&value)
		key := token.(string)
		if _, ok := values[key]; !ok {
			return line, fmt.Errorf("key %.40q stands twice", key)
		}
		delete(values, key)
		to, want := line.field(key)
		if to == nil {
			return line, fmt.Errorf("key %.40q is not known: want id, prompt, text, n or seed; "+
				"what is to come back goes into id, any JSON", key)
		}
		if json.Unmarshal(value, to) != nil {
			return line, fmt.Errorf("%q is %.40s: want %s", key, value, want)
		}
	}
	if line.Prompt != nil && line.Text != nil {
		return line, errors.New("a prompt and a text: give one, a text with -score")
	}
	return line, nil
}

// field is where the value of a key goes, and what it has to be.
func (l *batchLine) field(key string) (to any, want string) {
	switch key {
	case "id":
		return &l.ID, ""
	case "prompt":
		return &l.Prompt, "a string"
	case "text":
		return &l.Text, "a string"
	case "n":
		return &l.N, "a whole number"
	case "seed":
		return &l.Seed, "a whole number of 0 or more"
	case "meta": // what corpora say of their texts
		return new(json.RawMessage), ""
	}
	return nil, ""
}

// escapes are those of JSON strings that could hide half of a surrogate pair, the halves alone in a group.
var escapes = regexp.MustCompile(`\\[^u]|\\u[dD][89abAB]..\\u[dD][c-fC-F]..|(\\u[dD][89a-fA-F])`)

func halfPair(data []byte) bool {
	if !bytes.Contains(data, []byte(`\u`)) {
		return false
	}
	for _, match := range escapes.FindAllSubmatchIndex(data, -1) {
		if match[2] >= 0 {
			return true
		}
	}
	return false
}
