package seal

const (
	insertCheck  = `INSERT INTO seal_check (one, id, value) VALUES (1, ?1, ?2) ON CONFLICT (one) DO NOTHING`
	selectCheck  = `SELECT id, value FROM seal_check WHERE one = 1`
	insertSecret = `INSERT INTO secret (name, sealed) VALUES (?1, ?2) ON CONFLICT (name) DO NOTHING`
	selectSecret = `SELECT sealed FROM secret WHERE name = ?1`
)
