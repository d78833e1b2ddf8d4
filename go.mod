module keyroll

go 1.26.0

require (
	github.com/Azure/azure-sdk-for-go/sdk/azcore v1.24.0 // pipeline, retries and errors of the Azure clients below
	github.com/Azure/azure-sdk-for-go/sdk/azidentity v1.15.0 // signs in to Microsoft Entra for vaults and blobs in Azure
	github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/keyvault/armkeyvault v1.5.0 // reads and changes the properties of vaults
	github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys v1.5.0 // wraps and unwraps by keys in vaults, embedded and in Azure
	github.com/Azure/azure-sdk-for-go/sdk/storage/azblob v1.7.0 // stores blobs in Azure; 1.7, since 1.8 links Apache Arrow (7.7 MB)
	github.com/alecthomas/kong v1.17.0 // the command line
	github.com/danielgtaylor/huma/v2 v2.37.2 // binds, checks and documents the HTTP API (OpenAPI 3.1)
	github.com/emersion/go-message v0.18.2 // reads the headers of mail
	github.com/golang-jwt/jwt/v5 v5.3.1 // the tokens of the embedded token endpoint
	github.com/google/uuid v1.6.0 // GUIDs of tenants, policies and revisions
	github.com/jackc/pgx/v5 v5.12.0 // PostgreSQL
	github.com/minio/minio-go/v7 v7.4.1 // stores blobs in S3
	github.com/ncruces/go-sqlite3 v0.37.0 // SQLite without cgo
	github.com/pressly/goose/v3 v3.29.0 // migrations of the schema
	github.com/rogpeppe/go-internal v1.16.0 // tests: scripts of command lines
	github.com/vbauerster/mpb/v8 v8.16.2 // progress bars
	go.uber.org/goleak v1.3.0 // tests: goroutines that are left behind
	golang.org/x/net v0.62.0 // tests: the conformance suite of connections
	golang.org/x/sync v0.24.0 // groups of goroutines, one call for many callers
	golang.org/x/sys v0.49.0 // file locks and system limits
	golang.org/x/term v0.47.0 // asks on a terminal
	golang.org/x/text v0.43.0 // compares names without regard to case and composition
	golang.org/x/time v0.16.0 // rate limits
	pgregory.net/rapid v1.3.0 // tests: properties and models
)

require (
	github.com/Azure/azure-sdk-for-go/sdk/internal v1.13.0 // indirect
	github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/internal v1.2.0 // indirect
	github.com/AzureAD/microsoft-authentication-library-for-go v1.10.1 // indirect
	github.com/VividCortex/ewma v1.2.0 // indirect
	github.com/acarl005/stripansi v0.0.0-20180116102854-5a71ef0e047d // indirect
	github.com/cespare/xxhash/v2 v2.3.0 // indirect
	github.com/clipperhouse/uax29/v2 v2.7.0 // indirect
	github.com/dustin/go-humanize v1.1.0 // indirect
	github.com/jackc/pgpassfile v1.0.0 // indirect
	github.com/jackc/pgservicefile v0.0.0-20240606120523-5a60cdf6a761 // indirect
	github.com/jackc/puddle/v2 v2.2.3 // indirect
	github.com/klauspost/compress v1.20.1 // indirect
	github.com/klauspost/cpuid/v2 v2.4.0 // indirect
	github.com/klauspost/crc32 v1.3.0 // indirect
	github.com/kylelemons/godebug v1.1.0 // indirect
	github.com/mattn/go-runewidth v0.0.30 // indirect
	github.com/mfridman/interpolate v0.0.2 // indirect
	github.com/minio/crc64nvme v1.1.1 // indirect
	github.com/minio/md5-simd v1.1.2 // indirect
	github.com/ncruces/go-sqlite3-wasm/v6 v6.5.35401 // indirect
	github.com/ncruces/julianday v1.0.0 // indirect
	github.com/philhofer/fwd v1.2.0 // indirect
	github.com/pkg/browser v0.0.0-20240102092130-5ac0b6a4141c // indirect
	github.com/rs/xid v1.6.0 // indirect
	github.com/sethvargo/go-retry v0.5.0 // indirect
	github.com/tinylib/msgp v1.6.4 // indirect
	github.com/vbauerster/cupwriter v0.0.5 // indirect
	github.com/zeebo/xxh3 v1.1.0 // indirect
	go.uber.org/multierr v1.11.0 // indirect
	go.yaml.in/yaml/v3 v3.0.6 // indirect
	golang.org/x/crypto v0.58.0 // indirect
	golang.org/x/tools v0.52.0 // indirect
	gopkg.in/ini.v1 v1.67.3 // indirect
)
