-- +goose Up

-- 1: keyroll made the wrap of this customer key itself, with the key's public
-- part. 0: the vault made it, as in earlier versions, or nodes of one that still run.
ALTER TABLE revision ADD COLUMN primary_local BIGINT NOT NULL DEFAULT 0;
ALTER TABLE revision ADD COLUMN secondary_local BIGINT NOT NULL DEFAULT 0;
