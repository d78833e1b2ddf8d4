-- +goose Up

-- What a roll of depth container or content has replaced. Ids grow with time: a
-- key is older than a roll when the id drawn with it is below the roll's mark.
ALTER TABLE container ADD COLUMN keyed BIGINT NOT NULL DEFAULT 0;         -- its key was made after this id was drawn
ALTER TABLE container ADD COLUMN older BIGINT NOT NULL DEFAULT 0;         -- key page with the slot of the generation before; 0: none
ALTER TABLE container ADD COLUMN renewed BIGINT NOT NULL DEFAULT 0;       -- no blob of it has an id below
ALTER TABLE container ADD COLUMN claimed_by TEXT NOT NULL DEFAULT '';     -- node that works on it for a roll
ALTER TABLE container ADD COLUMN claimed_until BIGINT NOT NULL DEFAULT 0; -- 0: by none
CREATE INDEX container_older ON container (tenant, older) WHERE older <> 0;

ALTER TABLE roll ADD COLUMN mark BIGINT NOT NULL DEFAULT 0; -- depths container and content: keys older than this are replaced
ALTER TABLE roll ADD COLUMN stage TEXT NOT NULL DEFAULT ''; -- of such a roll: what it has come to
ALTER TABLE roll ADD COLUMN containers_done BIGINT NOT NULL DEFAULT 0;
ALTER TABLE roll ADD COLUMN blobs_total BIGINT NOT NULL DEFAULT 0;
ALTER TABLE roll ADD COLUMN blobs_done BIGINT NOT NULL DEFAULT 0;
ALTER TABLE roll ADD COLUMN bytes_total BIGINT NOT NULL DEFAULT 0;
ALTER TABLE roll ADD COLUMN bytes_done BIGINT NOT NULL DEFAULT 0;
