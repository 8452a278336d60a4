package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"strconv"

	"github.com/mzdio/mzd/core"
)

// id returns the id of a part of a cut's message: the same whenever the part is
// posted, by whatever process, and another one for everything else. what is what
// the part's bytes depend on beside the cut.
func (s *Sink) id(cut []core.Batch, part int, what ...string) string {
	of := append(append([]string{}, s.scope...), strconv.Itoa(part))
	of = append(of, what...)
	for _, b := range cut {
		of = append(of, b.View.Name, b.Lower.String(), b.Upper.String())
	}
	text, err := json.Marshal(of) // a text that no other list has
	if err != nil {
		panic(err) // a list of strings always has JSON
	}
	sum := sha256.Sum256(text)
	return "msg_" + hex.EncodeToString(sum[:16])
}

// signature signs a message as Standard Webhooks 1.0 does it with a symmetric
// key (https://www.standardwebhooks.com): the id, the time of the attempt in
// seconds since 1970 and the body, with dots between them.
func signature(key []byte, id, timestamp string, body []byte) string {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(id + "." + timestamp + "."))
	mac.Write(body)
	return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}
