package rootkey

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"

	"keyroll/api"
	"keyroll/internal/envelope"
	"keyroll/internal/fail"
)

// Class says what a failure means for the use of the availability key.
type Class int

const (
	// Outage means that a vault could not be used although the service has its
	// permission: the availability key may be used instead of the customer keys.
	Outage Class = iota
	// Refusal is a deliberate act of an administrator of the vault.
	Refusal
	// Local is a problem of keyroll itself, which says nothing about the vault. Every
	// failure of an embedded vault that is not a refusal is local.
	Local
)

// Failure is the reason for which a call to a vault failed.
type Failure struct {
	// Reason is the end of the message: "unwrap with key … in vault …: REASON".
	Reason string
	Class  Class

	// hint is the command that repairs it: {vault}, {key} and {principal} are
	// replaced by the vault's name, by -VaultName … -Name … -Version …, and by the
	// refused principal.
	hint string
}

// Refusals.
var (
	AccessRemoved = Failure{"the vault refused the service (403)", Refusal, "Set-AzKeyVaultAccessPolicy -VaultName {vault} -PermissionsToKeys wrapKey,unwrapKey,get -ServicePrincipalName {principal}"}
	OperationOff  = Failure{"the key version does not allow the operation", Refusal, "Update-AzKeyVaultKey {key} -KeyOps wrapKey,unwrapKey"}
	KeyDisabled   = Failure{"the key version is disabled", Refusal, "Update-AzKeyVaultKey {key} -Enable $true"}
	KeyExpired    = Failure{"the key version has expired", Refusal, `Update-AzKeyVaultKey {key} -Expires (Get-Date -Date "12/31/9999")`}
	NotYetValid   = Failure{"the key version is not yet valid", Refusal, "Update-AzKeyVaultKey {key} -NotBefore (Get-Date)"}
	KeyDeleted    = Failure{"the key version does not exist, or was deleted", Refusal, "list the existing keys: Get-AzKeyVaultKey -VaultName {vault}; a deleted key can be recovered for a time"}
	VaultDeleted  = Failure{"the vault does not exist, or was deleted", Refusal, "check the vault's name; a deleted vault can be recovered for a time"}
)

// Outages. For an embedded vault they are local problems.
var (
	Throttled          = Failure{"the vault received too many requests", Outage, ""}
	VaultError         = Failure{"the vault failed", Outage, ""}
	Rejected           = Failure{"the vault rejected the request", Outage, ""}
	unauthenticated    = Failure{"the vault does not accept the service's token", Outage, ""}
	noToken            = Failure{"the service could not get a token for the vault", Outage, ""}
	TimedOut           = Failure{"the vault did not answer in time", Outage, ""}
	NameNotFound       = Failure{"the vault's name does not resolve", Outage, ""}
	NotTrusted         = Failure{"the vault's TLS handshake or certificate failed", Outage, ""}
	NotReached         = Failure{"the vault could not be reached", Outage, ""}
	tooLargeAnswer     = Failure{"the vault's answer is too large", Outage, ""}
	malformedChallenge = Failure{"the vault answered with a malformed challenge", Outage, ""}
	MalformedAnswer    = Failure{"the vault gave an unusable answer", Outage, ""}
)

// Local problems.
var (
	Exhausted  = Failure{"this server has run out of file descriptors, memory or ports", Local, "raise the limits of the server's process; its log says more"}
	damagedKey = Failure{"the key version's private key in the database cannot be decrypted under the seal", Local, "docs/damage.md says how to restore it; keyroll verify names everything that is damaged"}
)

const localHint = "this is a problem of the server, not an outage of the vault; the server's log says more"

// ofEmbedded returns the failure for an embedded vault, which runs in this process: an
// administrator refused, or keyroll itself has a problem.
func (f Failure) ofEmbedded() Failure {
	if f.Class == Outage {
		f.Class, f.hint = Local, localHint
	}
	return f
}

// answers is the table of a vault's error answers: HTTP status, Azure error code (the
// inner one, else the outer one; empty for any) and the failure. The first row that
// fits wins; an answer that fits none is a MalformedAnswer. Codes from
// learn.microsoft.com/azure/key-vault/general/rest-error-codes and
// common-error-codes. A 404 without one of these codes comes from a server that is not
// a vault, so it is not a refusal.
var answers = []struct {
	status  int
	code    string
	failure Failure
}{
	{http.StatusForbidden, "KeyDisabled", KeyDisabled},
	{http.StatusForbidden, "KeyExpired", KeyExpired},
	{http.StatusForbidden, "KeyNotYetValid", NotYetValid},
	{http.StatusForbidden, "KeyOperationForbidden", OperationOff},
	{http.StatusForbidden, "", AccessRemoved},
	{http.StatusNotFound, "KeyNotFound", KeyDeleted},
	{http.StatusNotFound, "SecretNotFound", KeyDeleted},
	{http.StatusNotFound, "VaultNotFound", VaultDeleted},
	{http.StatusBadRequest, "", Rejected}, // also a wrap that cannot be decrypted
	{http.StatusUnauthorized, "", unauthenticated},
	{http.StatusRequestTimeout, "", TimedOut},
	{http.StatusTooManyRequests, "", Throttled},
	{http.StatusInternalServerError, keyDamagedCode, damagedKey}, // only of an embedded vault
	{http.StatusInternalServerError, "", VaultError},
	{http.StatusNotImplemented, "", VaultError},
	{http.StatusBadGateway, "", VaultError},
	{http.StatusServiceUnavailable, "", VaultError},
	{http.StatusGatewayTimeout, "", VaultError},
}

// causes is the table of failures without an answer.
var causes = []struct {
	fits    func(error) bool
	failure Failure
}{
	{exhausted, Exhausted},
	{is[*panicError], malformedChallenge},
	{func(err error) bool { return errors.Is(err, context.DeadlineExceeded) }, TimedOut},
	{is[*tokenError], noToken},
	{is[*http.MaxBytesError], tooLargeAnswer},
	{is[*net.DNSError], NameNotFound},
	{is[*tls.CertificateVerificationError], NotTrusted},
	{is[tls.RecordHeaderError], NotTrusted},
	{is[net.Error], NotReached}, // *url.Error is one: any other failure of net/http
}

// Classify returns the failure for an error of one call to a vault, as a method of
// Client or the Azure client returned it. An answer of the vault takes precedence over
// other causes; an answer of a token endpoint does not count as one.
func Classify(err error) Failure {
	var answer *azcore.ResponseError
	if errors.As(err, &answer) {
		code := azureErrorOf(answer).code()
		for _, row := range answers {
			if row.status == answer.StatusCode && (row.code == "" || row.code == code) {
				return row.failure
			}
		}
		return MalformedAnswer
	}
	for _, row := range causes {
		if row.fits(err) {
			return row.failure
		}
	}
	return MalformedAnswer
}

// keyDamagedCode is the error code with which an embedded vault answers, with status
// 500, if a private key cannot be decrypted under the seal.
const keyDamagedCode = "KeyDamaged"

// exhaustion has the errors of an operating system that has run out of a resource.
var exhaustion = []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.ENOBUFS, syscall.EADDRNOTAVAIL}

// exhausted reports whether this process or machine ran out of descriptors,
// memory or ports. It compares texts too, because the resolver and the credential
// chain keep only the text of such an error.
func exhausted(err error) bool {
	var texts []string
	var dns *net.DNSError
	if errors.As(err, &dns) {
		texts = append(texts, dns.Err)
	}
	var token *tokenError
	if errors.As(err, &token) {
		texts = append(texts, token.Error())
	}
	return slices.ContainsFunc(exhaustion, func(errno syscall.Errno) bool {
		return errors.Is(err, errno) || slices.ContainsFunc(texts, func(text string) bool { return strings.Contains(text, errno.Error()) })
	})
}

func is[T error](err error) bool {
	var target T
	return errors.As(err, &target)
}

// panicError is a panic of the Azure client.
type panicError struct{ value any }

func (e *panicError) Error() string { return fmt.Sprintf("the Azure client panicked: %v", e.value) }

// tokenError is a failed token request. It does not unwrap, so that an answer of a
// token endpoint or a credential chain is not taken for an answer of the vault.
type tokenError struct{ err error }

func (e *tokenError) Error() string { return e.err.Error() }

// azureError is the body of a vault's error answer.
type azureError struct {
	Error struct {
		Code       string `json:"code"`
		Message    string `json:"message"`
		InnerError struct {
			Code string `json:"code"`
		} `json:"innererror"`
	} `json:"error"`
}

func (e azureError) code() string {
	if e.Error.InnerError.Code != "" {
		return e.Error.InnerError.Code
	}
	return e.Error.Code
}

// azureErrorOf returns the error in an answer's body, or a zero one if there is none.
func azureErrorOf(answer *azcore.ResponseError) azureError {
	var e azureError
	if answer.RawResponse == nil {
		return e
	}
	body, err := runtime.Payload(answer.RawResponse) // kept by the client, not read again
	if err != nil || json.Unmarshal(body, &e) != nil {
		return azureError{}
	}
	return e
}

// code is the failure's code in an error that leaves the package.
func (f Failure) code() api.Code {
	switch {
	case f.Class == Refusal:
		return api.VaultDenied
	case f.Class == Outage:
		return api.VaultUnavailable
	case f.Reason == damagedKey.Reason:
		return api.Damaged
	}
	return api.Unavailable
}

// error returns the failure as an error for users.
func (f Failure) error(what string, kv envelope.KeyVersion, principal string, cause error) error {
	detail := what + ": " + f.Reason
	if message := vaultMessage(cause); message != "" {
		detail += ": " + message
	}
	if principal == "" {
		principal = "ID" // an external vault is used with the machine's credentials
	}
	hint := strings.NewReplacer("{vault}", vaultLabel(kv.Vault), "{key}", keyArguments(kv), "{principal}", principal).Replace(f.hint)
	e := fail.New(f.code(), "%s", detail).WithHint("%s", hint).Because(cause)
	e.RetryAfter = retryAfter(cause)
	return e
}

// retryAfter returns the wait that an answer asks for, in seconds or as a date (RFC
// 9110 section 10.2.3).
func retryAfter(err error) time.Duration {
	var answer *azcore.ResponseError
	if !errors.As(err, &answer) || answer.RawResponse == nil {
		return 0
	}
	text := answer.RawResponse.Header.Get("Retry-After")
	if seconds, err := strconv.ParseUint(text, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(0, time.Until(at))
	}
	return 0
}

// maxMessage bounds, in characters, how much of a vault's error message is shown.
const maxMessage = 300

// vaultMessage returns a vault's error message in one bounded line; that of a refusal
// names the principal and the permission. It is empty if the answer is not an Azure
// error.
func vaultMessage(err error) string {
	var answer *azcore.ResponseError
	if !errors.As(err, &answer) {
		return ""
	}
	printable := func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}
	message := strings.Join(strings.Fields(strings.Map(printable, azureErrorOf(answer).Error.Message)), " ")
	if runes := []rune(message); len(runes) > maxMessage {
		message = string(runes[:maxMessage]) + "…"
	}
	return message
}
