package blob

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"keyroll/api"
	"keyroll/internal/fail"
)

// s3Form is the form of the address of an S3 store.
const s3Form = "s3://BUCKET/PREFIX?region=REGION&endpoint=https://HOST"

// openS3 opens s3://BUCKET/PREFIX. Region and endpoint are in the address, or in the
// environment as for every AWS SDK; credentials are taken from the usual sources of
// AWS SDKs: environment, shared file, web identity, container, machine.
func openS3(ctx context.Context, u *url.URL) (Store, error) {
	query, err := onlyKnown(u, "region", "endpoint")
	if err != nil || u.Host == "" || u.Port() != "" {
		return nil, badAddress(s3Form)
	}
	endpoint := cmp.Or(query.Get("endpoint"), os.Getenv("AWS_ENDPOINT_URL_S3"), os.Getenv("AWS_ENDPOINT_URL"))
	region := cmp.Or(query.Get("region"), os.Getenv("AWS_REGION"), os.Getenv("AWS_DEFAULT_REGION"))
	lookup := minio.BucketLookupAuto
	if endpoint != "" {
		lookup, region = minio.BucketLookupPath, cmp.Or(region, "us-east-1")
	}
	host, err := url.Parse(cmp.Or(endpoint, "https://s3.amazonaws.com"))
	if err != nil || host.Host == "" || host.User != nil || host.Scheme != "https" && host.Scheme != "http" || strings.Trim(host.Path, "/") != "" {
		return nil, fail.New(api.InvalidArgument, "open blob store: the endpoint must be https:// and a host")
	}
	chain := credentials.NewChainCredentials([]credentials.Provider{&credentials.EnvAWS{}, &credentials.FileAWSCredentials{}, &credentials.IAM{}})
	transport := newTransport()
	client, err := minio.New(host.Host, &minio.Options{Creds: chain, Secure: host.Scheme == "https", Transport: transport, Region: region, BucketLookup: lookup, MaxRetries: 1})
	if err != nil {
		return nil, fail.New(api.InvalidArgument, "open blob store: %w", err).WithHint("an address is %s", s3Form)
	}
	client.SetAppInfo("keyroll", "1")
	prefix := strings.Trim(u.Path, "/")
	r := newRemote("s3://" + u.Host + "/" + prefix)
	if prefix != "" {
		prefix += "/"
	}
	r.objects = &s3{core: minio.Core{Client: client}, bucket: u.Host, prefix: prefix, plain: host.Scheme == "http", transport: transport}
	if value, err := chain.GetWithContext(nil); err != nil || value.AccessKeyID == "" {
		return nil, fail.New(api.Unavailable, "open blob store %s: there are no credentials for it", r.address).Because(err).
			WithHint("set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE with a shared credentials file, or give the machine a role")
	}
	if err := r.check(ctx); err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

// s3 is a bucket, or the objects in it whose names begin with prefix.
type s3 struct {
	core           minio.Core
	bucket, prefix string
	plain          bool // not over TLS: the request's signature covers the content
	transport      *http.Transport
}

// Headers of S3.
const (
	sumHeader   = "X-Amz-Checksum-Crc32c"
	tokenHeader = "X-Amz-Meta-Keyroll-Put"
)

func (s *s3) options(token string) minio.PutObjectOptions {
	o := minio.PutObjectOptions{DisableContentSha256: true, UserMetadata: map[string]string{}}
	if token != "" {
		o.UserMetadata[tokenHeader] = token
	}
	return o
}

// checksum returns a CRC-32C in the form of S3.
func checksum(sum uint32) string {
	return base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, sum))
}

// signed returns the hash of content that a request's signature covers.
func (s *s3) signed(body []byte) string {
	if !s.plain {
		return ""
	}
	hash := sha256.Sum256(body)
	return hex.EncodeToString(hash[:])
}

func (s *s3) put(ctx context.Context, name string, body []byte, token string) error {
	o := s.options(token)
	o.SetMatchETagExcept("*")
	o.UserMetadata[sumHeader] = checksum(crc32.Checksum(body, castagnoli))
	_, err := s.core.PutObject(ctx, s.bucket, s.prefix+name, bytes.NewReader(body), int64(len(body)), "", s.signed(body), o)
	return err
}

func (s *s3) begin(ctx context.Context, name, token string) (upload, error) {
	o := s.options(token)
	o.UserMetadata["X-Amz-Checksum-Algorithm"] = "CRC32C"
	id, err := s.core.NewMultipartUpload(ctx, s.bucket, s.prefix+name, o)
	return upload{name: name, token: token, id: id}, err
}

func (s *s3) part(ctx context.Context, u *upload, body []byte) error {
	sum := crc32.Checksum(body, castagnoli)
	stored, err := s.core.PutObjectPart(ctx, s.bucket, s.prefix+u.name, u.id, len(u.parts)+1, bytes.NewReader(body), int64(len(body)),
		minio.PutObjectPartOptions{Sha256Hex: s.signed(body), DisableContentSha256: true, CustomHeader: http.Header{sumHeader: {checksum(sum)}}})
	if err == nil {
		u.parts = append(u.parts, storedPart{stored.ETag, sum})
	}
	return err
}

func (s *s3) end(ctx context.Context, u *upload) error {
	o := s.options("")
	o.SetMatchETagExcept("*")
	parts := make([]minio.CompletePart, len(u.parts))
	for i, p := range u.parts {
		parts[i] = minio.CompletePart{PartNumber: i + 1, ETag: p.tag, ChecksumCRC32C: checksum(p.sum)}
	}
	_, err := s.core.CompleteMultipartUpload(ctx, s.bucket, s.prefix+u.name, u.id, parts, o)
	return err
}

func (s *s3) abandon(ctx context.Context, u *upload) error {
	return s.core.AbortMultipartUpload(ctx, s.bucket, s.prefix+u.name, u.id)
}

func (s *s3) get(ctx context.Context, name string, off, n int64) (io.ReadCloser, object, error) {
	var o minio.GetObjectOptions
	o.Set("X-Amz-Checksum-Mode", "ENABLED")
	switch {
	case n >= 0:
		o.Set("Range", fmt.Sprintf("bytes=%d-%d", off, off+n-1))
	case off > 0:
		o.Set("Range", fmt.Sprintf("bytes=%d-", off))
	}
	body, info, header, err := s.core.GetObject(ctx, s.bucket, s.prefix+name, o)
	if err != nil {
		return nil, object{}, err
	}
	is := s.object(info, header)
	if whole := header.Get("Content-Range"); whole != "" { // bytes 0-9/10
		_, size, _ := strings.Cut(whole, "/")
		if is.size, err = strconv.ParseInt(size, 10, 64); err != nil {
			body.Close()
			return nil, object{}, fmt.Errorf("the answer to a range request states no object length: %q", whole)
		}
	} else if off > 0 || n >= 0 && n < is.size {
		body.Close()
		return nil, object{}, errors.New("the whole object was sent in answer to a range request")
	}
	return body, is, nil
}

func (s *s3) object(info minio.ObjectInfo, header http.Header) object {
	is := object{name: strings.TrimPrefix(info.Key, s.prefix), size: info.Size, token: header.Get(tokenHeader)}
	// The checksum of an object made of parts is one over theirs, with their number as a suffix: it is not used.
	if raw, err := base64.StdEncoding.DecodeString(header.Get(sumHeader)); err == nil && len(raw) == 4 {
		sum := binary.BigEndian.Uint32(raw)
		is.sum = &sum
	}
	return is
}

func (s *s3) head(ctx context.Context, name string) (object, error) {
	info, err := s.core.StatObject(ctx, s.bucket, s.prefix+name, minio.StatObjectOptions{})
	if s.grade(err) == missing { // the answer has no body, so it may be the bucket that is missing
		if _, _, err := s.page(ctx, name, "", 1); err != nil {
			return object{}, err
		}
	}
	return s.object(info, info.Metadata), err
}

func (s *s3) remove(ctx context.Context, name string) error {
	return s.core.RemoveObject(ctx, s.bucket, s.prefix+name, minio.RemoveObjectOptions{})
}

func (s *s3) page(ctx context.Context, prefix, from string, most int) (list []object, next string, err error) {
	if from != "" {
		from = s.prefix + from
	}
	ctx, cancel := context.WithCancel(ctx) // stops the listing on return
	defer cancel()
	for info := range s.core.ListObjectsIter(ctx, s.bucket, minio.ListObjectsOptions{Prefix: s.prefix + prefix, Recursive: true, StartAfter: from, MaxKeys: most}) {
		if info.Err != nil {
			return nil, "", info.Err
		}
		list = append(list, s.object(info, nil))
		if len(list) == most {
			return list, list[most-1].name, nil
		}
	}
	return list, "", nil
}

func (s *s3) close() { s.transport.CloseIdleConnections() }

func (s *s3) grade(err error) grade {
	var answer minio.ErrorResponse
	if !errors.As(err, &answer) || answer.StatusCode == 0 && answer.Code == "" {
		return temporary // no answer
	}
	switch answer.Code {
	case "NoSuchKey", "NoSuchUpload":
		return missing
	case "NoSuchBucket":
		return refused
	case "PreconditionFailed":
		return taken
	case "InvalidRange":
		return pastEnd
	case "XMinioStorageFull", "QuotaExceeded", "XMinioAdminBucketQuotaExceeded":
		return full
	case "ConditionalRequestConflict", "OperationAborted", "RequestTimeout", "SlowDown", "BadDigest", "XAmzContentChecksumMismatch":
		return temporary // damaged in transit, or another put was under way
	}
	return gradeOfStatus(answer.StatusCode)
}

func (s *s3) oneLine(err error) string {
	var answer minio.ErrorResponse
	if errors.As(err, &answer) && answer.Code != "" {
		return answer.Code + ": " + answer.Error()
	}
	return err.Error()
}

// gradeOfStatus returns the grade of an error of which only the HTTP status is known.
func gradeOfStatus(status int) grade {
	switch {
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		return denied
	case status == http.StatusPreconditionFailed:
		return taken
	case status == http.StatusRequestedRangeNotSatisfiable:
		return pastEnd
	case status == http.StatusInsufficientStorage:
		return full
	case status == http.StatusRequestTimeout || status == http.StatusTooManyRequests || status >= 500:
		return temporary
	}
	return refused
}
