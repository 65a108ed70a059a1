package photon

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
)

// jsonFloat is a float32 in JSON, which knows neither NaN, null here, nor infinities, strings here.
type jsonFloat float32

func (f jsonFloat) MarshalJSON() ([]byte, error) {
	switch v := float64(f); {
	case math.IsNaN(v):
		return []byte("null"), nil
	case math.IsInf(v, 0):
		return strconv.AppendQuote(nil, strconv.FormatFloat(v, 'g', -1, 32)), nil
	}
	return json.Marshal(float32(f))
}

func (f *jsonFloat) UnmarshalJSON(data []byte) error {
	switch text := string(data); text {
	case "null":
		*f = jsonFloat(math.NaN())
		return nil
	case `"+Inf"`, `"-Inf"`:
		*f = jsonFloat(math.Inf(int(',') - int(text[1])))
		return nil
	}
	return json.Unmarshal(data, (*float32)(f))
}

// tokenJSON is a Token, and a BatchToken where Request is set.
type tokenJSON struct {
	Request *int `json:",omitempty"`
	ID      int
	Text    string
	Stop    StopReason
	LogProb jsonFloat
	Top     []TokenProb
}

func (t Token) json() tokenJSON {
	return tokenJSON{nil, t.ID, t.Text, t.Stop, jsonFloat(t.LogProb), t.Top}
}

func (j tokenJSON) token() Token { return Token{j.ID, j.Text, j.Stop, float32(j.LogProb), j.Top} }

// MarshalJSON writes a NaN as null, an infinity as "+Inf" or "-Inf".
func (t Token) MarshalJSON() ([]byte, error) { return json.Marshal(t.json()) }

// UnmarshalJSON reads what MarshalJSON writes.
func (t *Token) UnmarshalJSON(data []byte) error {
	j := tokenJSON{LogProb: jsonFloat(math.NaN())}
	if err := json.Unmarshal(data, &j); err != nil {
		return fmt.Errorf("photon: token: %w", err)
	}
	*t = j.token()
	return nil
}

// MarshalJSON writes the token's fields and Request.
func (t BatchToken) MarshalJSON() ([]byte, error) {
	j := t.Token.json()
	j.Request = &t.Request
	return json.Marshal(j)
}

// UnmarshalJSON reads what MarshalJSON writes.
func (t *BatchToken) UnmarshalJSON(data []byte) error {
	j := tokenJSON{LogProb: jsonFloat(math.NaN()), Request: &t.Request}
	if err := json.Unmarshal(data, &j); err != nil {
		return fmt.Errorf("photon: token: %w", err)
	}
	t.Token = j.token()
	return nil
}

// MarshalJSON writes a NaN as null, an infinity as "+Inf" or "-Inf".
func (p TokenProb) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		ID      int
		LogProb jsonFloat
	}{p.ID, jsonFloat(p.LogProb)})
}

// UnmarshalJSON reads what MarshalJSON writes.
func (p *TokenProb) UnmarshalJSON(data []byte) error {
	j := struct {
		ID      int
		LogProb jsonFloat
	}{}
	if err := json.Unmarshal(data, &j); err != nil {
		return fmt.Errorf("photon: token: %w", err)
	}
	*p = TokenProb{j.ID, float32(j.LogProb)}
	return nil
}
