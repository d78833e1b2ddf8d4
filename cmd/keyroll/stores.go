package main

// stores name where a node stores its data, as flags of serve and of an offline
// verify.
type stores struct {
	Database     string `name:"database" env:"KEYROLL_DATABASE" placeholder:"URL" help:"Database: postgres://USER@HOST/NAME, which several nodes may share (default: SQLite in the data folder). Give a password in KEYROLL_DATABASE, PGPASSWORD or the file of PGPASSFILE, not on the command line. Between machines use ?sslmode=verify-full."`
	Blobs        string `name:"blobs" env:"KEYROLL_BLOBS" placeholder:"URL" help:"Blob store: file:///FOLDER, s3://BUCKET/PREFIX or azblob://ACCOUNT/CONTAINER/PREFIX (default: a folder in the data folder)."`
	Seal         string `name:"seal" env:"KEYROLL_SEAL" placeholder:"URL" help:"Seal, the key that encrypts keyroll's own secrets: file:///FILE, the same for all nodes of a database (default: a file in the data folder)."`
	Availability string `name:"availability" placeholder:"URL" help:"Store of the availability keys: file:///FOLDER, or https://VAULT for a vault of the operator, accessed with the machine's own credentials (AZURE_TENANT_ID and so on) (default: a folder in the data folder). It is fixed at the first start."`
}
