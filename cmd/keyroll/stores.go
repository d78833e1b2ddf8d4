package main

// stores are where a node keeps what it has, as flags of serve and of an offline
// verify.
type stores struct {
	Database     string `name:"database" env:"KEYROLL_DATABASE" placeholder:"URL" help:"Database: postgres://USER@HOST/NAME, which several nodes may share; SQLite in the data folder unless given. A password stands better in KEYROLL_DATABASE, PGPASSWORD or the file of PGPASSFILE than on the command line. Across machines: ?sslmode=verify-full."`
	Blobs        string `name:"blobs" env:"KEYROLL_BLOBS" placeholder:"URL" help:"Blob store: file:///FOLDER, s3://BUCKET/PREFIX or azblob://ACCOUNT/CONTAINER/PREFIX; a folder in the data folder unless given."`
	Seal         string `name:"seal" env:"KEYROLL_SEAL" placeholder:"URL" help:"Seal of keyroll's own secrets: file:///FILE, the same for all nodes on a database; a file in the data folder unless given."`
	Availability string `name:"availability" placeholder:"URL" help:"Store of the availability keys: file:///FOLDER, or https://VAULT, a vault of the operator's own, reached with the machine's own credentials (AZURE_TENANT_ID and so on); a folder in the data folder unless given. Later starts use the one of the first."`
}
