-- +goose Up

-- What a policy protects as a unit: a mailbox, a site, or a workload store. The
-- tenant's directory, whose key seals names, is the workload with empty name.
CREATE TABLE container (
    id         BIGINT  NOT NULL PRIMARY KEY,
    tenant     BIGINT  NOT NULL,
    kind       TEXT    NOT NULL,
    name_hash  ${BLOB} NOT NULL, -- HMAC of the normalised name, by which it is found
    name       ${BLOB} NOT NULL, -- sealed
    class      BIGINT  NOT NULL, -- of its key page: the state of a mailbox
    policy     BIGINT  NOT NULL, -- 0: none of its own
    page       BIGINT  NOT NULL, -- the key page with its key's slot
    generation BIGINT  NOT NULL, -- of its key, counted from 1
    created    BIGINT  NOT NULL,
    recipient  TEXT    NOT NULL DEFAULT '', -- of a mailbox: what it serves
    external   ${BLOB} NOT NULL, -- of a mail user: where its mail is, sealed; empty: none
    geo        BIGINT  NOT NULL DEFAULT 0,  -- of a site: geo.id; 0: the default one
    purged     BIGINT  NOT NULL DEFAULT 0,  -- when it was marked for deletion; 0: it was not
    UNIQUE (tenant, kind, name_hash)
);
CREATE INDEX container_kind ON container (tenant, kind, id);
CREATE INDEX container_page ON container (tenant, page);
