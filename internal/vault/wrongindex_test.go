package vault

import (
	"testing"

	"keyroll/api"
	"keyroll/internal/fail"
	"keyroll/internal/store"
	"keyroll/internal/store/storetest"
)

// Where an index leads to a version of another key, or by a name to another key,
// nothing of that key is deleted.
func TestAPurgeOfAKeyDeletesNoVersionOfAnother(t *testing.T) {
	exec := func(db *store.DB, query string, args ...any) {
		t.Helper()
		if err := db.InTx(t.Context(), func(tx *store.Tx) error { return execute(t.Context(), tx, query, args...) }); err != nil {
			t.Fatal(err)
		}
	}
	for index, moved := range map[string]string{
		"sqlite_autoindex_vault_key_version_1": `UPDATE vault_key_version SET vault_key = 2, number = 2, version = 'moved'`,
		"sqlite_autoindex_vault_key_1":         `UPDATE vault_key SET name = 'moved', name_folded = 'moved' WHERE id = 1`,
	} {
		t.Run(index, func(t *testing.T) {
			db := storetest.SQLite(t)
			for _, k := range []key{{id: 1, tenant: 1, vault: 9, name: "K", latest: 1}, {id: 2, tenant: 1, vault: 9, name: "other", latest: 1}} {
				if err := db.InTx(t.Context(), func(tx *store.Tx) error { return insertKey(t.Context(), tx, k) }); err != nil {
					t.Fatal(err)
				}
			}
			v := version{id: 3, tenant: 1, key: 1, number: 1, version: "v", kind: "RSA", public: []byte{1}, sealed: []byte{1}}
			if err := db.InTx(t.Context(), func(tx *store.Tx) error { return insertVersion(t.Context(), tx, v) }); err != nil {
				t.Fatal(err)
			}
			db = storetest.LoseWrites(t, db, index, func(db *store.DB) { exec(db, moved) })
			err := db.InTx(t.Context(), func(tx *store.Tx) error {
				k, _, err := findKey(t.Context(), tx, 9, "k")
				if err != nil {
					return err
				}
				return deleteKeyRows(t.Context(), tx, k)
			})
			if !fail.Is(err, api.Damaged) {
				t.Errorf("[%s] %v", fail.CodeOf(err), err)
			}
			var keys, versions int
			err = db.ViewOnce(t.Context(), func(tx *store.Tx) error {
				return tx.QueryRow(t.Context(), `SELECT (SELECT COUNT(*) FROM vault_key NOT INDEXED), (SELECT COUNT(*) FROM vault_key_version NOT INDEXED)`).Scan(&keys, &versions)
			})
			if err != nil || keys != 2 || versions != 1 {
				t.Errorf("%d keys and %d versions are left: %v", keys, versions, err)
			}
		})
	}
}
