package blob

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/streaming"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	azblob "github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"

	"keyroll/api"
	"keyroll/internal/fail"
)

// azureForm is the form of the address of an Azure store.
const azureForm = "azblob://ACCOUNT/CONTAINER/PREFIX?endpoint=https://HOST"

// openAzure opens azblob://ACCOUNT/CONTAINER/PREFIX. The default endpoint is that of
// the public cloud. The account's key may be in the environment (AZURE_STORAGE_KEY);
// otherwise the identity is taken from the usual sources of Azure SDKs: environment,
// workload identity, managed identity, Azure CLI.
func openAzure(ctx context.Context, u *url.URL) (Store, error) {
	query, err := onlyKnown(u, "endpoint")
	name, prefix, _ := strings.Cut(strings.Trim(u.Path, "/"), "/")
	if err != nil || u.Host == "" || u.Port() != "" || name == "" {
		return nil, badAddress(azureForm)
	}
	endpoint, err := url.Parse(cmp.Or(query.Get("endpoint"), "https://"+u.Host+".blob.core.windows.net"))
	if err != nil || endpoint.Host == "" || endpoint.User != nil || endpoint.RawQuery != "" || endpoint.Scheme != "https" && endpoint.Scheme != "http" {
		return nil, fail.New(api.InvalidArgument, "open blob store: the endpoint must be https:// and a host")
	}
	r := newRemote("azblob://" + u.Host + "/" + name + "/" + prefix)
	if prefix != "" {
		prefix += "/"
	}
	transport := newTransport()
	options := azcore.ClientOptions{Transport: &http.Client{Transport: transport}, Retry: policy.RetryOptions{MaxRetries: -1}, Telemetry: policy.TelemetryOptions{ApplicationID: "keyroll"}}
	client, err := azureClient(ctx, endpoint.JoinPath(name).String(), u.Host, options)
	if err != nil {
		return nil, fail.New(api.Unavailable, "open blob store %s: there are no credentials for it", r.address).Because(err).
			WithHint("set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET, or AZURE_STORAGE_KEY, or give the machine a managed identity")
	}
	r.objects = &azure{client: client, prefix: prefix, transport: transport}
	if err := r.check(ctx); err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

func azureClient(ctx context.Context, address, account string, options azcore.ClientOptions) (*container.Client, error) {
	if key := os.Getenv("AZURE_STORAGE_KEY"); key != "" {
		shared, err := container.NewSharedKeyCredential(account, key)
		if err != nil {
			return nil, errors.New("AZURE_STORAGE_KEY is not a valid key") // the cause might repeat it
		}
		return container.NewClientWithSharedKeyCredential(address, shared, &container.ClientOptions{ClientOptions: options})
	}
	identity, err := azidentity.NewDefaultAzureCredential(nil)
	if err == nil {
		_, err = identity.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{"https://storage.azure.com/.default"}})
	}
	if err != nil {
		return nil, err
	}
	return container.NewClient(address, identity, &container.ClientOptions{ClientOptions: options})
}

// azure is a container of a storage account, or the blobs in it whose names begin
// with prefix.
type azure struct {
	client    *container.Client
	prefix    string
	transport *http.Transport
}

// Metadata that a blob is stored with. The service verifies a checksum of each
// request, but keeps none for a blob made of blocks: that checksum is keyroll's own.
const (
	sumMetadata   = "keyrollcrc32c"
	tokenMetadata = "keyrollput"
)

func metadata(token string, sum uint32) map[string]*string {
	return map[string]*string{tokenMetadata: &token, sumMetadata: to.Ptr(fmt.Sprintf("%08x", sum))}
}

// ifAbsent makes a request fail if the blob exists.
func ifAbsent() *azblob.AccessConditions {
	return &azblob.AccessConditions{ModifiedAccessConditions: &azblob.ModifiedAccessConditions{IfNoneMatch: to.Ptr(azcore.ETagAny)}}
}

func (a *azure) block(name string) *blockblob.Client {
	return a.client.NewBlockBlobClient(a.prefix + name)
}

func seekable(body []byte) io.ReadSeekCloser { return streaming.NopCloser(bytes.NewReader(body)) }

func (a *azure) put(ctx context.Context, name string, body []byte, token string) error {
	_, err := a.block(name).Upload(ctx, seekable(body), &blockblob.UploadOptions{Metadata: metadata(token, crc32.Checksum(body, castagnoli)),
		AccessConditions: ifAbsent(), TransactionalValidation: azblob.TransferValidationTypeComputeCRC64()})
	return err
}

// begin sends no request: the service deletes uncommitted blocks after a week.
func (a *azure) begin(_ context.Context, name, token string) (upload, error) {
	return upload{name: name, token: token}, nil
}

func (a *azure) part(ctx context.Context, u *upload, body []byte) error {
	// All block ids of a blob must have the same length. The token distinguishes those
	// of two uploads of the same name.
	id := base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32([]byte(u.token), uint32(len(u.parts))))
	_, err := a.block(u.name).StageBlock(ctx, id, seekable(body), &blockblob.StageBlockOptions{TransactionalValidation: azblob.TransferValidationTypeComputeCRC64()})
	if err == nil {
		u.parts = append(u.parts, storedPart{tag: id})
		u.sum = crc32.Update(u.sum, castagnoli, body)
	}
	return err
}

func (a *azure) end(ctx context.Context, u *upload) error {
	ids := make([]string, len(u.parts))
	for i, p := range u.parts {
		ids[i] = p.tag
	}
	_, err := a.block(u.name).CommitBlockList(ctx, ids, &blockblob.CommitBlockListOptions{Metadata: metadata(u.token, u.sum), AccessConditions: ifAbsent()})
	return err
}

func (a *azure) abandon(context.Context, *upload) error { return nil }

func (a *azure) get(ctx context.Context, name string, off, n int64) (io.ReadCloser, object, error) {
	answer, err := a.block(name).DownloadStream(ctx, &azblob.DownloadStreamOptions{Range: azblob.HTTPRange{Offset: off, Count: max(n, 0)}})
	if err != nil {
		return nil, object{}, err
	}
	is := azureObject(name, answer.ContentLength, answer.Metadata)
	if whole := answer.ContentRange; whole != nil { // bytes 0-9/10
		_, size, _ := strings.Cut(*whole, "/")
		if is.size, err = strconv.ParseInt(size, 10, 64); err != nil {
			answer.Body.Close()
			return nil, object{}, fmt.Errorf("the answer to a range request states no object length: %q", *whole)
		}
	} else if off > 0 || n >= 0 && n < is.size {
		answer.Body.Close()
		return nil, object{}, errors.New("the whole object was sent in answer to a range request")
	}
	return answer.Body, is, nil
}

func azureObject(name string, size *int64, metadata map[string]*string) object {
	is := object{name: name}
	if size != nil {
		is.size = *size
	}
	for key, value := range metadata { // HTTP may change the case of a name
		switch {
		case value == nil:
		case strings.EqualFold(key, tokenMetadata):
			is.token = *value
		case strings.EqualFold(key, sumMetadata):
			if sum, err := strconv.ParseUint(*value, 16, 32); err == nil {
				is.sum = to.Ptr(uint32(sum))
			}
		}
	}
	return is
}

func (a *azure) head(ctx context.Context, name string) (object, error) {
	answer, err := a.block(name).GetProperties(ctx, nil)
	if err != nil {
		return object{}, err
	}
	return azureObject(name, answer.ContentLength, answer.Metadata), nil
}

func (a *azure) remove(ctx context.Context, name string) error {
	_, err := a.block(name).Delete(ctx, &azblob.DeleteOptions{DeleteSnapshots: to.Ptr(azblob.DeleteSnapshotsOptionTypeInclude)})
	return err
}

func (a *azure) page(ctx context.Context, prefix, from string, most int) (list []object, next string, err error) {
	options := &container.ListBlobsFlatOptions{Prefix: to.Ptr(a.prefix + prefix), MaxResults: to.Ptr(int32(most))}
	if from != "" {
		options.Marker = &from
	}
	answer, err := a.client.NewListBlobsFlatPager(options).NextPage(ctx)
	if err != nil {
		return nil, "", err
	}
	for _, b := range answer.Segment.BlobItems {
		list = append(list, azureObject(strings.TrimPrefix(*b.Name, a.prefix), b.Properties.ContentLength, nil))
	}
	if answer.NextMarker != nil {
		next = *answer.NextMarker
	}
	return list, next, nil
}

func (a *azure) close() { a.transport.CloseIdleConnections() }

func (a *azure) grade(err error) grade {
	var denial *azidentity.AuthenticationFailedError
	if errors.As(err, &denial) && denial.RawResponse != nil && denial.RawResponse.StatusCode/100 == 4 {
		return denied
	}
	var answer *azcore.ResponseError
	if !errors.As(err, &answer) {
		return temporary // no answer
	}
	switch bloberror.Code(answer.ErrorCode) {
	case bloberror.BlobNotFound:
		return missing
	case bloberror.ContainerNotFound, bloberror.ContainerBeingDeleted, "FeatureNotSupported":
		return refused
	case bloberror.BlobAlreadyExists:
		return taken
	case bloberror.InvalidRange:
		return pastEnd
	case bloberror.MD5Mismatch, "Crc64Mismatch", "InvalidBlobOrBlock":
		return temporary // damaged in transit, or changed by another request in the meantime
	}
	return gradeOfStatus(answer.StatusCode)
}

func (a *azure) oneLine(err error) string {
	var answer *azcore.ResponseError
	if errors.As(err, &answer) { // its Error method returns the whole answer
		return fmt.Sprintf("%s: status %d", answer.ErrorCode, answer.StatusCode)
	}
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}
