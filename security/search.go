package security

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/url"
	"slices"
	"strings"
)

// holdsSecret reports whether a text contains a secret: as it is, in another case,
// reversed, or encoded in base64, hex, a URL or JSON.
func holdsSecret(text []byte, secret string) bool {
	for _, form := range forms(secret) {
		if bytes.Contains(text, []byte(form)) {
			return true
		}
	}
	return bytes.Contains(bytes.ToLower(text), []byte(strings.ToLower(secret)))
}

func forms(secret string) []string {
	runes := []rune(secret)
	slices.Reverse(runes)
	escaped, _ := json.Marshal(secret)
	all := []string{secret, string(runes), url.QueryEscape(secret), hex.EncodeToString([]byte(secret)), string(escaped[1 : len(escaped)-1])}
	// The base64 of a secret depends on its offset in the text. Only the part that does
	// not depend on its neighbours is searched.
	for shift := range 3 {
		code := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("\x00", shift) + secret))
		from := []int{0, 2, 3}[shift]
		if to := len(code) - 4; to-from >= 8 {
			all = append(all, code[from:to])
		}
	}
	return all
}
