-- +goose Up

-- What the principal is: token, code or approver; empty: of the service, the first admin of
-- a tenant, or an approver of an earlier version.
ALTER TABLE principal ADD COLUMN kind TEXT NOT NULL DEFAULT '';

-- principal.id of everyone who has seen its secret or that of one of them, the last first,
-- separated by spaces; empty: only the service.
ALTER TABLE principal ADD COLUMN issuer TEXT NOT NULL DEFAULT '';

ALTER TABLE principal ADD COLUMN expires BIGINT NOT NULL DEFAULT 0; -- 0: never
ALTER TABLE principal ADD COLUMN used BIGINT NOT NULL DEFAULT 0;    -- its token was last used, to the minute
ALTER TABLE principal ADD COLUMN revoked BIGINT NOT NULL DEFAULT 0; -- 0: it is not
