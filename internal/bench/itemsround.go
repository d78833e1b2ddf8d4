package bench

import "context"

// itemsRound measures a number of clients once.
type itemsRound struct {
	*itemsClients
	number int
	series series
}

// mail measures imports, the list of what they stored, and what imports are compared with.
func (r itemsRound) mail(ctx context.Context) error {
	mail := r.newImports(len(r.all))
	var write, imported timing
	err := r.inTurn(
		func() (err error) { write, err = r.writeMail(mail); return err },
		func() error {
			before, err := r.objects()
			if err != nil {
				return err
			}
			if imported, err = r.importMail(ctx, mail); err != nil {
				return err
			}
			after, err := r.objects()
			r.add("objectsPer1000Messages", float64(after-before)*1000/float64(r.options.Items))
			return err
		})
	if err != nil {
		return err
	}
	rows, err := r.insertRows(ctx, mail)
	if err != nil {
		return err
	}
	list, err := r.list(ctx, mail)
	if err != nil {
		return err
	}
	r.addRates(map[string]timing{"writeMailPerSecond": write, "importPerSecond": imported, "rowsPerSecond": rows, "listPerSecond": list})
	r.add("ratioImportToWrite", imported.rateAgainst(write))
	r.add("ratioImportToRows", imported.rateAgainst(rows))
	return nil
}

// puts measures puts and plain writes.
func (r itemsRound) puts(ctx context.Context) error {
	var write, put timing
	err := r.inTurn(
		func() (err error) { write, err = r.writeFiles(len(r.all)); return err },
		func() (err error) { put, err = r.put(ctx); return err })
	if err != nil {
		return err
	}
	r.addRates(map[string]timing{"writeFilesPerSecond": write, "putPerSecond": put})
	r.add("ratioPutToWrite", put.rateAgainst(write))
	r.add("putP50Seconds", quantile(put.each, 0.5))
	r.add("putP99Seconds", quantile(put.each, 0.99))
	return nil
}

// gets measures gets of the files that were just stored, with and without audit entries.
func (r itemsRound) gets(ctx context.Context) error {
	var get, without timing
	err := r.inTurn(
		func() (err error) { get, err = r.get(ctx); return err },
		func() (err error) {
			r.withoutAudit.Store(true)
			defer r.withoutAudit.Store(false)
			without, err = r.get(ctx)
			return err
		})
	if err != nil {
		return err
	}
	r.addRates(map[string]timing{"getPerSecond": get, "withoutAuditPerSecond": without})
	r.add("ratioGetToWithoutAudit", get.rateAgainst(without))
	r.add("getP50Seconds", quantile(get.each, 0.5))
	r.add("getP99Seconds", quantile(get.each, 0.99))
	return nil
}

// inTurn measures what is compared. Another part begins in each round, because each leaves
// the disk with work to do; the jobs that it has queued are done before the next one.
func (r itemsRound) inTurn(compared ...func() error) error {
	for i := range compared {
		if err := compared[(r.number+i)%len(compared)](); err != nil {
			return err
		}
		r.Upkeep.Wait()
	}
	return nil
}

func (r itemsRound) add(name string, value float64) {
	r.series.add(atClients(name, len(r.all)), value)
}

func (r itemsRound) addRates(rates map[string]timing) {
	for name, t := range rates {
		r.add(name, perSecond(r.options.Items, t.took))
	}
}
