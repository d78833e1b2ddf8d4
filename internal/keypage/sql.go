package keypage

import (
	"fmt"
	"slices"
	"strings"

	"keyroll/internal/envelope"
	"keyroll/internal/store"
)

const columns = `id, tenant, parent, generation, class, version, count, body`

const selectPage = `SELECT ` + columns + ` FROM key_page WHERE tenant = ?1 AND id = ?2`

// selectPages reads rows by their ids: without the + SQLite would, for more than a
// few ids, scan all pages of the tenant in the index key_page_place.
const selectPages = `SELECT ` + columns + ` FROM key_page WHERE +tenant = ?1 AND id IN `

const insertPage = `INSERT INTO key_page (` + columns + `) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)`

const updatePage = `UPDATE key_page SET parent = ?4, generation = ?5, class = ?6, version = ?7, count = ?8, body = ?9
	WHERE tenant = ?1 AND id = ?2 AND version = ?3`

const deletePage = `DELETE FROM key_page WHERE tenant = ?1 AND id = ?2 AND version = ?3`

const selectBlobPages = `SELECT id FROM key_page WHERE tenant = ?1 AND class = ?2 AND parent = ?3 LIMIT ?4`

// deleteBlobPage checks the row itself and does not rely on the index that listed it.
const deleteBlobPage = `DELETE FROM key_page WHERE id = ?1 AND +tenant = ?2 AND +class = ?3 AND +parent = ?4`

// sumPages excludes class blobs (?2), the highest, by a range, so that its index
// entries are not even scanned.
const sumPages = `SELECT class, parent, generation, COUNT(*), CAST(SUM(count) AS BIGINT) FROM key_page
	WHERE tenant = ?1 AND class < ?2
	GROUP BY class, parent, generation ORDER BY class, parent, generation`

// span is a range of the index key_page_place in which ids ascend.
type span struct {
	class  envelope.Class
	parent Parent
}

// maxSpans bounds the terms of one statement; SQLite accepts up to 500
// (SQLITE_LIMIT_COMPOUND_SELECT).
const maxSpans = 100

// maxListed bounds the terms of a statement whose number store.PaddedLen rounds up.
const maxListed = 64

// spans returns each pair of parents and classes once.
func spans(parents []Parent, classes []envelope.Class) []span {
	var all []span
	seen := make(map[span]bool)
	for _, class := range classes {
		for _, parent := range parents {
			if s := (span{class, parent}); !seen[s] {
				seen[s] = true
				all = append(all, s)
			}
		}
	}
	return all
}

// underPages selects from each span the first limit ids, which needs only the index,
// and then the rows of the first limit ids of all spans.
func underPages(tenant int64, spans []span, after int64, limit int) (query string, args []any) {
	terms, args := spanConditions(spans, []any{tenant, after, limit})
	for i, term := range terms {
		terms[i] = `SELECT id FROM (SELECT id FROM key_page WHERE ` + term + ` AND id > ?2 ORDER BY id LIMIT ?3) AS span`
	}
	return `SELECT ` + columns + ` FROM key_page WHERE id IN (` + strings.Join(terms, ` UNION ALL `) + `) ORDER BY id LIMIT ?3`, args
}

func countPages(tenant int64, spans []span) (query string, args []any) {
	terms, args := spanConditions(paddedSpans(spans), []any{tenant})
	for i, term := range terms {
		terms[i] = `SELECT COUNT(*) AS pages, COALESCE(SUM(count), 0) AS slots FROM key_page WHERE ` + term
	}
	return `SELECT CAST(SUM(pages) AS BIGINT), CAST(SUM(slots) AS BIGINT) FROM (` + strings.Join(terms, ` UNION ALL `) + `) AS spans`, args
}

// parentsWithPages selects the parent of the first page of each span.
func parentsWithPages(tenant int64, spans []span) (query string, args []any) {
	terms, args := spanConditions(paddedSpans(spans), []any{tenant})
	for i, term := range terms {
		terms[i] = `SELECT parent, generation FROM (SELECT parent, generation FROM key_page WHERE ` + term + ` ORDER BY id LIMIT 1) AS span`
	}
	return strings.Join(terms, ` UNION ALL `), args
}

// IDs selects the ids of the pages of a set, of at most maxSpans pairs of a parent and a
// class.
func (s Set) IDs() store.Selection {
	terms, args := spanConditions(spans(s.Parents, s.Classes), []any{s.Tenant})
	if len(terms) == 0 {
		terms, args = []string{`1 = 0`}, nil
	}
	return store.Select(`SELECT id FROM key_page WHERE (`+strings.Join(terms, ` OR `)+`)`, args...)
}

// spanConditions returns a condition for each span. Its parameters follow those in args,
// of which ?1 is the tenant.
func spanConditions(spans []span, args []any) (terms []string, _ []any) {
	for _, s := range spans {
		n := len(args)
		terms = append(terms, fmt.Sprintf(`tenant = ?1 AND class = ?%d AND parent = ?%d AND generation = ?%d`, n+1, n+2, n+3))
		args = append(args, s.class, s.parent.ID, s.parent.Generation)
	}
	return terms, args
}

// scanRow reads a row of columns.
func scanRow(row store.Scanner) (r Row, err error) {
	err = row.Scan(r.columns(&r.Body)...)
	return r, err
}

// columns returns where to scan the columns of a row; body is the last of them.
func (r *Row) columns(body any) []any {
	return []any{&r.ID, &r.Tenant, &r.Parent, &r.Generation, &r.Class, &r.Version, &r.Count, body}
}

// locationsUnder reads only the index key_page_place, and of it only the entries under
// the parents, whatever statistics PostgreSQL has of the table: for a join or a list
// it might choose another plan.
func locationsUnder(tenant int64, class envelope.Class, parents []Parent) (query string, args []any) {
	terms, args := spanConditions(paddedSpans(spans(parents, []envelope.Class{class})), []any{tenant})
	for i, term := range terms {
		terms[i] = `SELECT id, parent FROM key_page WHERE ` + term
	}
	return strings.Join(terms, ` UNION ALL `), args
}

// paddedSpans adds empty spans up to a padded number: no page is under parent 0.
func paddedSpans(spans []span) []span {
	n := store.PaddedLen(len(spans))
	all := slices.Grow(slices.Clone(spans), n)
	for len(all) < n {
		all = append(all, span{class: envelope.ClassActive})
	}
	return all
}

// changedOneRow reports which statements changed their row.
func changedOneRow(affected []int64) []bool {
	ok := make([]bool, len(affected))
	for i, n := range affected {
		ok[i] = n == 1
	}
	return ok
}
