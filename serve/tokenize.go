package serve

import (
	"net/http"
	"slices"
)

// The shapes are vLLM's, which lm-evaluation-harness's remote tokenizer knows.

// mostText bounds the bytes that an answer spells out of tokens that a request gives: a token of few bytes in a request
// may be a long text.
const mostText = 16 << 20

// textBytes counts the bytes of tokens, up to where they are more than mostText.
func (s *server) textBytes(ids []int) (n int) {
	t := s.m.Tokenizer()
	if t == nil {
		return 0
	}
	for _, id := range ids {
		if n += len(t.Bytes(id)); n > mostText {
			break
		}
	}
	return n
}

// checkSpelling reports tokens that are more than an answer spells out.
func (s *server) checkSpelling(param string, ids []int) error {
	if len(ids) > s.o.tokens {
		return badRequest(param, "%d tokens, this server spells out as many as a text may have, %d: send less",
			len(ids), s.o.tokens)
	}
	if s.textBytes(ids) > mostText {
		return badRequest(param, "the text of the %d tokens has more than %d bytes, the most that this server spells "+
			"out: send less", len(ids), mostText)
	}
	return nil
}

type tokenizeRequest struct {
	Model   string  `json:"model"`
	Prompt  *string `json:"prompt"`
	Special *bool   `json:"add_special_tokens"` // those of the template; a special token that the text spells out is one
	Strings bool    `json:"return_token_strs"`
}

func (s *server) tokenize(w http.ResponseWriter, r *http.Request) {
	var body tokenizeRequest
	err := s.read(w, r, &body)
	if err == nil {
		err = s.known(body.Model)
	}
	t := s.m.Tokenizer()
	switch {
	case err != nil:
	case t == nil:
		err = badRequest("", "this model has no tokenizer")
	case body.Prompt == nil:
		err = badRequest("prompt", "prompt is missing: give the text")
	}
	if err != nil {
		s.fail(w, err)
		return
	}
	ids := t.Encode(*body.Prompt)
	if body.Special != nil && !*body.Special {
		ids = ids[len(s.prefix) : len(ids)-len(s.suffix)]
	}
	if body.Strings {
		if err := s.checkSpelling("prompt", ids); err != nil {
			s.fail(w, err)
			return
		}
	}
	if ids == nil {
		ids = []int{} // no null
	}
	out := struct {
		Count   int      `json:"count"`
		Most    int      `json:"max_model_len"`
		Tokens  []int    `json:"tokens"`
		Strings []string `json:"token_strs,omitempty"`
	}{len(ids), s.o.tokens, ids, nil}
	if body.Strings {
		for _, id := range ids {
			out.Strings = append(out.Strings, tokenName(t, id))
		}
	}
	s.json(w, http.StatusOK, out)
}

type detokenizeRequest struct {
	Model  string   `json:"model"`
	Tokens tokenIDs `json:"tokens"`
}

func (s *server) detokenize(w http.ResponseWriter, r *http.Request) {
	var body detokenizeRequest
	err := s.read(w, r, &body)
	if err == nil {
		err = s.known(body.Model)
	}
	t := s.m.Tokenizer()
	vocab := s.cfg.VocabSize
	unknown := slices.IndexFunc(body.Tokens, func(id int) bool { return id < 0 || id >= vocab })
	switch {
	case err != nil:
	case t == nil:
		err = badRequest("", "this model has no tokenizer")
	case body.Tokens == nil:
		err = badRequest("tokens", "tokens is missing: give the list of token ids")
	case unknown >= 0:
		err = badRequest("tokens", "token %d is %d: the vocabulary is 0 … %d", unknown, body.Tokens[unknown], vocab-1)
	default:
		err = s.checkSpelling("tokens", body.Tokens)
	}
	if err != nil {
		s.fail(w, err)
		return
	}
	s.json(w, http.StatusOK, map[string]string{"prompt": t.Decode(body.Tokens)})
}

func (s *server) tokenizerInfo(w http.ResponseWriter, r *http.Request) {
	t := s.m.Tokenizer()
	if t == nil {
		s.fail(w, &apiError{status: http.StatusNotFound, kind: "invalid_request_error",
			message: "this model has no tokenizer"})
		return
	}
	spelling := func(id int) *string {
		token, ok := t.Token(id)
		if !ok {
			return nil
		}
		return &token
	}
	info := map[string]any{"model_max_length": s.o.tokens, "bos_token": spelling(s.cfg.BOSTokenID), "eos_token": nil}
	if len(s.cfg.EOSTokenIDs) > 0 {
		info["eos_token"] = spelling(s.cfg.EOSTokenIDs[0])
	}
	s.json(w, http.StatusOK, info)
}
