-- +goose Up

-- The purge of a policy: who asked for it and when each step was done; 0: not yet.
CREATE TABLE purge (
    policy            BIGINT  NOT NULL PRIMARY KEY,
    tenant            BIGINT  NOT NULL,
    id                BIGINT  NOT NULL, -- its two texts are sealed for it
    requester         TEXT    NOT NULL, -- principal.id
    reason            ${BLOB} NOT NULL, -- sealed
    contact           ${BLOB} NOT NULL, -- sealed
    requested         BIGINT  NOT NULL,
    policy_deleted    BIGINT  NOT NULL,
    containers_marked BIGINT  NOT NULL,
    key_destroyed     BIGINT  NOT NULL,
    containers        BIGINT  NOT NULL, -- that were marked
    message           TEXT    NOT NULL  -- what it waits for
);
CREATE INDEX purge_tenant ON purge (tenant, id);

CREATE TABLE purge_approval (
    policy   BIGINT NOT NULL REFERENCES purge (policy),
    approver TEXT   NOT NULL, -- principal.id
    tenant   BIGINT NOT NULL,
    approved BIGINT NOT NULL,
    PRIMARY KEY (policy, approver)
);
