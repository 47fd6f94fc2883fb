class Client:
    def get(self, number):
        raise ValueError("no parcel %d" % number)
