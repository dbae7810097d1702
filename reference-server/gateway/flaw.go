//go:build !flaws

package gateway

import (
	"net/http"

	"github.com/launchgate/launchgate/reference-server/ledger"
)

// planted reports whether a flaw is planted. A build without the tag flaws has
// none, and the compiler leaves out what would act on one.
func planted(string) bool { return false }

func (g *guard) prefixed(_ string, key ledger.Key, err error) (ledger.Key, error) { return key, err }
func (g *Gateway) withoutKey(*http.Request) bool                                  { return false }
func (g *Gateway) openRoutes(*http.ServeMux)                                      {}
func (g *Gateway) misled(_ http.ResponseWriter, r *http.Request) *http.Request    { return r }
func misspelled(_ *call, body []byte) []byte                                      { return body }
func weaken(*renewable)                                                           {}
func (b *balancer) accuse()                                                       {}
func ownerOf(_, tenant string) string                                             { return tenant }
func owns(string, string)                                                         {}
