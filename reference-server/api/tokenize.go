package api

import (
	"errors"
	"net/http"
)

// tokenize returns the tokens of a text or of a chat's messages, as vLLM's
// endpoint of that name does.
func (s *Server) tokenize(w http.ResponseWriter, r *http.Request) {
	q, err := readRequest(w, r)
	if err != nil {
		fail(w, problemOf(err))
		return
	}
	e, release, err := s.use(r, q.Model)
	if err != nil {
		fail(w, problemOf(err))
		return
	}
	defer release()
	prompt := request.promptTokens
	if len(q.Messages) > 0 {
		prompt = request.chatPrompt
	}
	ids, err := prompt(q, r.Context(), e)
	if err != nil {
		fail(w, problemOf(err))
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{"tokens": append([]int32{}, ids...), "count": len(ids), "max_model_len": e.Info().MaxSequence})
}

// detokenize returns the text of tokens.
func (s *Server) detokenize(w http.ResponseWriter, r *http.Request) {
	var q struct {
		Model  string  `json:"model"`
		Tokens []int32 `json:"tokens"`
	}
	err := readJSON(w, r, &q)
	if err == nil && q.Tokens == nil {
		err = errors.New("tokens must be a list of token ids")
	}
	if err != nil {
		fail(w, problemOf(err))
		return
	}
	e, release, err := s.use(r, q.Model)
	if err != nil {
		fail(w, problemOf(err))
		return
	}
	defer release()
	text, err := e.Detokenize(q.Tokens)
	if err != nil {
		fail(w, problemOf(err))
		return
	}
	writeJSON(w, http.StatusOK, map[string]string{"prompt": text})
}
